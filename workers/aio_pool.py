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
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool, apply_target

STOP_PATIENCE = 5.0
"""Seconds that cancelled coroutines have to end in a cold shutdown."""


class Running:
    """What Celery holds of a request in work."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def terminate(self, signal: Any = None) -> None:
        """Cancel it: `revoke(terminate=True)`."""
        self._future.cancel()

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the end of a plain task."""
        return self._future.result(timeout)


class TaskPool(BasePool):
    """Runs coroutines on a loop of its own thread, and plain tasks in threads."""

    runs_coroutines = True
    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = True

    def on_start(self) -> None:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
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
    ) -> Running:
        """Start a request; a coroutine function goes on the loop, anything else to a thread."""
        if not inspect.iscoroutinefunction(target):
            plain = partial(apply_target, target, args, kwargs or {}, callback, accept_callback)
            return Running(self._threads.submit(plain))
        request = self._run(
            target, args, callback, accept_callback, error_callback, timeout_callback, timeout
        )
        return Running(asyncio.run_coroutine_threadsafe(request, self._loop))

    async def _run(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        callback: Callable[..., Any] | None,
        accept_callback: Callable[..., Any] | None,
        error_callback: Callable[..., Any] | None,
        timeout_callback: Callable[..., Any] | None,
        timeout: float | None,
    ) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        started = time.monotonic()
        if accept_callback:
            accept_callback(threading.get_ident(), started)
        try:
            async with asyncio.timeout(timeout) as limit:
                result = await target(*args)
        except BaseException as error:
            # Whatever ended it, Celery must hear of it, or the event would be held for ever.
            if isinstance(error, TimeoutError) and limit.expired() and timeout_callback:
                timeout_callback(soft=False, timeout=timeout)
            elif error_callback:
                error_callback(ExceptionInfo())
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
            return
        if callback:
            callback((0, result, time.monotonic() - started))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _end(self, *, cancel: bool) -> None:
        async def finish() -> None:
            tasks = set(self._tasks)
            if cancel:
                for task in tasks:
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_PATIENCE if cancel else None)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_PATIENCE)
        self._loop.close()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Nothing: a coroutine has no process; `Running.terminate` cancels it."""

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "running": len(self._tasks)}
