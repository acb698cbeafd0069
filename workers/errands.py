"""Remembers what a coroutine gives to threads, by `asyncio.to_thread` or `run_in_executor(None,
…)`.

Nothing stops a thread when the coroutine is cancelled or gives up waiting. So an attempt that has
failed lasts until its threads have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

from handlers.threads import HandlerThreads

ResultT = TypeVar("ResultT")

_errands: ContextVar[list[Future[Any]] | None] = ContextVar("errands", default=None)


class OffloadThreads(ThreadPoolExecutor):
    """The default executor of a loop that runs handlers."""

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """Run it in a thread, and remember for which handler."""
        future = super().submit(fn, *args, **kwargs)
        errands = _errands.get()
        if errands is not None:
            errands.append(future)
        return future


class Offloaded:
    """What one handler call has given to threads; made in its context, before it begins."""

    def __init__(self) -> None:
        self._given: list[Future[Any]] = []
        _errands.set(self._given)

    async def end(self, threads: HandlerThreads) -> None:
        """Wait until none is under way, however often this is cancelled.

        Raises:
            asyncio.CancelledError: the threads were told to let go.
        """
        for errand in self._given:
            if not errand.cancel() and not errand.done():
                await threads.outlast(errand)
