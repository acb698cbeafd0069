"""The asyncio pool: a Celery pool whose requests are coroutines on one event loop.

Thousands of handlers that wait for the network run in one process; handlers that compute belong in
processes. The pool has no time limits of its own, for each handler has its timeout.

Use it by `flybridge worker --pool asyncio`, or with `CELERY_CUSTOM_WORKER_POOL` set to
`flybridge.workers.aio_pool:TaskPool` by `celery -A flybridge.workers.app worker -P custom`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool, apply_target

from flybridge.handlers.loggers import get_logger
from flybridge.workers.run import watch
from flybridge.workers.run.loops import OffloadThreads

__all__ = ["TaskPool"]

log = get_logger(__name__)

CANCEL_TIMEOUT = 5.0
"""Seconds that cancelled coroutines have to end in a cold shutdown."""


LOST_CHECK_PERIOD = 0.5
"""Seconds between checks, in a warm shutdown, whether what still runs may ever end."""


def _all_lost() -> bool:
    return watch.here().all_lost(time.monotonic())


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Celery's callbacks of a request: of its begin, its success and its failure."""

    accepted: Callable[..., Any] | None
    ended: Callable[..., Any] | None
    failed: Callable[..., Any] | None


class Running:
    """A coroutine that runs, or is about to; Celery holds this as the result of `apply_async`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Callable[[], Coroutine[Any, Any, Any]],
        callbacks: Callbacks,
    ) -> None:
        self._loop = loop
        self._target = target
        self._callbacks = callbacks
        self._task: asyncio.Task[Any] | None = None
        self._began = 0.0
        # Whichever of two threads pops this first decides whether it begins.
        self._unbegun = [self]
        self.passed_over = False
        """It would have begun by now, had it not been taken back."""

    def begin(self) -> asyncio.Task[Any]:
        """Start it; called on the loop."""
        self._task = self._loop.create_task(self._run())
        # Not at the end of the coroutine: one that is cancelled before it begins has none.
        self._task.add_done_callback(self._tell)
        return self._task

    def take_back(self) -> bool:
        """Have it never begin; callable from any thread. False if it has."""
        with suppress(IndexError):
            return bool(self._unbegun.pop())
        return False

    def terminate(self, signal: Any = None) -> None:
        """Cancel it: `revoke(terminate=True)`."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> Any:
        if not self.take_back():
            self.passed_over = True
            return None
        self._began = time.monotonic()
        if self._callbacks.accepted:
            self._callbacks.accepted(threading.get_ident(), self._began)
        return await self._target()

    def _tell(self, task: asyncio.Task[Any]) -> None:
        if self.passed_over:
            return
        try:
            result = task.result()
        # Whatever ended it, Celery must hear of it, or the event would be held for ever.
        except BaseException:
            if self._callbacks.failed:
                self._callbacks.failed(ExceptionInfo())
        else:
            if self._callbacks.ended:
                self._callbacks.ended((0, result, time.monotonic() - self._began))


class TaskPool(BasePool):
    """Runs coroutines on a loop of its own thread, and plain tasks in threads."""

    runs_coroutines = True
    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = True

    def on_start(self) -> None:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(OffloadThreads())
        self._tasks: set[asyncio.Task[Any]] = set()
        self._inbox: deque[Running] = deque()
        self._rung = self._stopping = False
        self._threads = ThreadPoolExecutor(min(32, self.limit), "flybridge-task")
        self._thread = threading.Thread(target=self._serve, name="flybridge-loop", daemon=True)
        self._thread.start()

    def on_stop(self) -> None:
        """Warm shutdown: let everything in work end that may end."""
        self._threads.shutdown()
        self._end(cancel=False)

    def on_terminate(self) -> None:
        """Cold shutdown: cancel what is in work."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end(cancel=True)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Running | None:
        """Start a request; a coroutine function goes on the loop, anything else to a thread."""
        if not inspect.iscoroutinefunction(target):
            self._threads.submit(
                apply_target, target, args, kwargs or {}, callback, accept_callback
            )
            return None
        callbacks = Callbacks(accept_callback, callback, error_callback)
        running = Running(self._loop, partial(target, *args), callbacks)
        self._inbox.append(running)
        # Waking the loop for each of many would cost more than running them.
        if not self._rung:
            self._rung = True
            self._loop.call_soon_threadsafe(self._begin)
        return running

    def _begin(self) -> None:
        # Before the look: what comes in meanwhile must wake the loop again.
        self._rung = False
        while self._inbox:
            task = self._inbox.popleft().begin()
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopping:
            try:
                self._loop.run_forever()
            # Raised in a task that a handler started; asyncio lets it stop the loop. Only that
            # handler fails.
            except (KeyboardInterrupt, SystemExit) as error:
                log.error("loop.interrupted", error=repr(error),
                          hint="a handler's task raised it; only that handler fails")  # fmt: skip

    def _end(self, *, cancel: bool) -> None:
        async def finish() -> None:
            tasks = set(self._tasks)
            if cancel and tasks:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
            # A handler's thread that never ends must not keep the worker from its end.
            while not (cancel or all(map(asyncio.Task.done, tasks)) or _all_lost()):
                await asyncio.wait(tasks, timeout=LOST_CHECK_PERIOD)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CANCEL_TIMEOUT)
        self._loop.close()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Nothing: a coroutine has no process; `Running.terminate` cancels it."""

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "running": len(self._tasks)}
