"""The event loop of a thread and the threads of a process, made at first use: after the fork.

They are for callers without a running loop; the asyncio pool has a loop of its own.

Nothing stops a thread when the coroutine that waits for it is cancelled. So loops remember what a
coroutine gives to threads, by `asyncio.to_thread` or `run_in_executor(None, …)`, and an attempt
that has failed lasts until its threads have ended.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

from flybridge.handlers.calling.threads import HandlerThreads
from flybridge.workers.run.failures import is_order_to_exit

ResultT = TypeVar("ResultT")

_local = threading.local()

_offloaded: ContextVar[list[Future[Any]] | None] = ContextVar("offloaded", default=None)


def drive(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run on this thread's loop, and leave nothing running if it is interrupted.

    An interruption is raised when everything has ended, calls in threads too; at once if the
    process ends.
    """
    loops = _loops()
    runner = loops.get(os.getpid())
    if runner is None:
        runner = loops[os.getpid()] = asyncio.Runner()
        runner.get_loop().set_default_executor(OffloadThreads())
    try:
        # What one event leaves in its context must not reach the next.
        return runner.run(coroutine, context=contextvars.copy_context())
    except BaseException as error:
        if is_order_to_exit(error):
            threads_of(os.getpid()).let_go()
        runner.run(_cancel_all())
        raise


def close_loop() -> None:
    """Close the event loop of this thread, if there is one; what runs on it is cancelled."""
    runner = _loops().pop(os.getpid(), None)
    if runner is not None:
        runner.close()


@functools.cache
def threads_of(pid: int) -> HandlerThreads:
    """The threads of the process `pid`: a forked child must not use its parent's."""
    return HandlerThreads()


def _loops() -> dict[int, asyncio.Runner]:
    """The loops of this thread, by process: a forked child must not touch its parent's."""
    if not hasattr(_local, "loops"):
        _local.loops = {}
    loops: dict[int, asyncio.Runner] = _local.loops
    return loops


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class OffloadThreads(ThreadPoolExecutor):
    """The default executor of a loop that runs handlers."""

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """Run it in a thread, and remember for which handler."""
        future = super().submit(fn, *args, **kwargs)
        offloaded = _offloaded.get()
        if offloaded is not None:
            offloaded.append(future)
        return future


class Offloaded:
    """What one handler call has given to threads; made in its context, before it begins."""

    def __init__(self) -> None:
        self._given: list[Future[Any]] = []
        _offloaded.set(self._given)

    async def end(self, threads: HandlerThreads) -> None:
        """Wait until all of it has ended, however often this is cancelled.

        Raises:
            asyncio.CancelledError: the threads were told to let go.
        """
        for each in self._given:
            if not each.cancel() and not each.done():
                await threads.outlast(each)
