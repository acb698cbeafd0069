"""Threads for `def` handlers on an event loop: each call starts at once, in an idle or new thread.

With the ThreadPoolExecutor of concurrent.futures a call would wait for a thread while its timeout
runs, and the process could not end while a thread hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

Ended = tuple[Any, BaseException | None]
"""What a call returned, and what it raised."""

of_caller: contextvars.ContextVar[HandlerThreads | None] = contextvars.ContextVar(
    "of_caller", default=None
)
"""The threads of the worker that calls the handler, for middleware; None if no worker does."""

_Work = tuple[Callable[[], Any], Callable[[Ended], None]]


class HandlerThreads:
    """A growing set of threads. The slots of the callers limit their number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One queue for all: the next call goes to a thread that is awake already, if there is one.
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        # Idle threads that no call in the queue is meant for.
        self._idle = 0
        self._closed = False
        self._waiting: set[_Waiting] = set()

    def start(self, call: Callable[[], Any], tell: Callable[[Ended], None]) -> None:
        """Make a call in an idle thread, or in a new one.

        Args:
            call: called without arguments; may raise anything.
            tell: called by the same thread with the end of the call; must not raise.

        Raises:
            RuntimeError: the system gives no more threads, or these were shut down; the call is
                not made.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("These threads were shut down; start nothing more.")
            if self._idle:
                self._idle -= 1
            else:
                # A daemon, because a call that hangs must not keep the process from ending.
                threading.Thread(target=self._serve, name="handler", daemon=True).start()
            self._work.put((call, tell))

    def let_go(self) -> None:
        """Cancel all waits for the end of a call, because the process or the loop ends."""
        for waiting in list(self._waiting):
            waiting.let_go()

    def shutdown(self) -> None:
        """End each thread as soon as it is idle; does not wait for them, and cancels all waits."""
        self.let_go()
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._work.put(None)
            self._idle = 0

    async def wait(self, waiting: _Waiting) -> Ended:
        """Wait for the end of a call that was started here.

        Raises:
            asyncio.CancelledError: see `let_go`.
        """
        self._waiting.add(waiting)
        try:
            return await waiting.end()
        finally:
            self._waiting.discard(waiting)

    async def outlast(self, other: Future[Any]) -> None:
        """Wait in the same way for a call in a thread of another executor.

        Raises:
            asyncio.CancelledError: see `let_go`.
        """
        waiting = _Waiting(asyncio.get_running_loop())
        other.add_done_callback(lambda _: waiting.tell((None, None)))
        await self.wait(waiting)

    def _serve(self) -> None:
        while work := self._work.get():
            call, tell = work
            ended = _ended(call)
            # Idle before the caller is told, so that its next call finds this thread.
            self._free()
            tell(ended)
            # An idle thread must not keep objects of a handler alive.
            del work, call, tell, ended

    def _free(self) -> None:
        with self._lock:
            if self._closed:
                self._work.put(None)
            else:
                self._idle += 1


def _ended(call: Callable[[], Any]) -> Ended:
    try:
        return call(), None
    except BaseException as error:  # the caller waits for it, whatever it is
        return None, error
    finally:
        # The error's traceback holds this frame, so this would be a reference cycle.
        del call


async def in_thread(threads: HandlerThreads, call: Callable[..., Any], *args: Any) -> Any:
    """Make a call in one of the threads, in a copy of this context, and await its end.

    A cancellation waits for that end, too: a thread cannot be stopped, and must not go on beside
    the next attempt. If the call then succeeds, its value is returned.

    Raises:
        BaseException: what the call raised.
        asyncio.CancelledError: `let_go` was called.
        RuntimeError: as `start`.
    """
    waiting = _Waiting(asyncio.get_running_loop())
    in_context = partial(contextvars.copy_context().run, call, *args)
    threads.start(in_context, waiting.tell)
    value, error = await threads.wait(waiting)
    try:
        if error is not None:
            raise error
        return value
    finally:
        # As above: the error's traceback holds this frame.
        del value, error, waiting, in_context


class _Waiting:
    """Waits on an event loop for the end of a call in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._how: Ended | None = None
        self._over = False
        # Its result is always None: a future whose exception is a StopIteration would never end.
        self._rung: asyncio.Future[None] = loop.create_future()

    def tell(self, how: Ended) -> None:
        """Note how the call has ended; may be called from any thread."""
        self._how = how
        self._ring()

    def let_go(self) -> None:
        """End the wait; may be called from any thread."""
        self._ring()

    async def end(self) -> Ended:
        """Wait for the end of the call, even if the wait is cancelled; returns how it ended."""
        while not self._over:
            try:
                await self._rung
            except asyncio.CancelledError:
                self._rung = self._loop.create_future()
        if self._how is None:
            raise asyncio.CancelledError
        return self._how

    def _ring(self) -> None:
        # Nobody waits on a closed loop.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._over = True
        if not self._rung.done():
            self._rung.set_result(None)
