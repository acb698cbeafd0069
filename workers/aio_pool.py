"""The asyncio pool: a Celery pool whose requests are coroutines on one event loop.

Thousands of handlers that wait for the network run in one process; a time limit cancels the
coroutine. It is not for handlers that compute: those want processes.

Use it by `flybridge worker --pool asyncio`, or with `CELERY_CUSTOM_WORKER_POOL` set to
`workers.aio_pool:TaskPool` by `celery -A workers.app worker -P custom`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool, apply_target

log = structlog.get_logger("workers.pool")

STOP_PATIENCE = 5.0
"""Seconds that cancelled coroutines have to end in a cold shutdown."""


class Overdue(Exception):
    """A request has taken longer than its time limit."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Whom Celery wants told of a request; exactly one of the last three hears of its end."""

    accepted: Callable[..., Any] | None
    ended: Callable[..., Any] | None
    failed: Callable[..., Any] | None
    overdue: Callable[..., Any] | None


class Running:
    """A coroutine in work, or about to be; what Celery holds of it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Callable[[], Coroutine[Any, Any, Any]],
        callbacks: Callbacks,
        timeout: float | None,
    ) -> None:
        self._loop = loop
        self._target = target
        self._callbacks = callbacks
        self._timeout = timeout
        self._task: asyncio.Task[Any] | None = None
        self._began = 0.0

    def begin(self) -> asyncio.Task[Any]:
        """Start it; called on the loop."""
        self._task = self._loop.create_task(self._limited())
        # Not at the end of the coroutine: one that is cancelled in time has no beginning, either.
        self._task.add_done_callback(self._tell)
        return self._task

    def terminate(self, signal: Any = None) -> None:
        """Cancel it: `revoke(terminate=True)`."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _limited(self) -> Any:
        self._began = time.monotonic()
        if self._callbacks.accepted:
            self._callbacks.accepted(threading.get_ident(), self._began)
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                return await self._target()
        except TimeoutError as error:
            if limit.expired():
                raise Overdue from error
            raise

    def _tell(self, task: asyncio.Task[Any]) -> None:
        try:
            result = task.result()
        except Overdue:
            if self._callbacks.overdue:
                self._callbacks.overdue(soft=False, timeout=self._timeout)
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
        self._tasks: set[asyncio.Task[Any]] = set()
        self._inbox: deque[Running] = deque()
        self._rung = self._stopping = False
        self._threads = ThreadPoolExecutor(min(32, self.limit), "flybridge-task")
        self._thread = threading.Thread(target=self._serve, name="flybridge-loop", daemon=True)
        self._thread.start()

    def on_stop(self) -> None:
        """Warm shutdown: let everything in work end."""
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
        timeout_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Running | None:
        """Start a request; a coroutine function goes on the loop, anything else to a thread."""
        if not inspect.iscoroutinefunction(target):
            self._threads.submit(
                apply_target, target, args, kwargs or {}, callback, accept_callback
            )
            return None
        callbacks = Callbacks(accept_callback, callback, error_callback, timeout_callback)
        running = Running(self._loop, partial(target, *args), callbacks, timeout)
        self._inbox.append(running)
        # To wake the loop for each of many would cost more than to run them.
        if not self._rung:
            self._rung = True
            self._loop.call_soon_threadsafe(self._begin)
        return running

    def _begin(self) -> None:
        # Before the look: what comes in meanwhile must ring again.
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
            # That of a task which a handler started; asyncio lets it stop the loop. The handler
            # fails by it, and nobody else.
            except (KeyboardInterrupt, SystemExit) as error:
                log.error("loop.interrupted", error=repr(error))

    def _end(self, *, cancel: bool) -> None:
        async def finish() -> None:
            tasks = set(self._tasks)
            if cancel:
                for task in tasks:
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_PATIENCE if cancel else None)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_PATIENCE)
        self._loop.close()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Nothing: a coroutine has no process; `Running.terminate` cancels it."""

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "running": len(self._tasks)}
