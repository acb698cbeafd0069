"""Threads for `def` handlers on an event loop: as many as are at work at once, and no fewer.

They are not concurrent.futures' ThreadPoolExecutor, whose callers wait for a thread while their
time runs, and whose process cannot end while a thread hangs.
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
"""What a call returned, or what it raised."""

of_caller: contextvars.ContextVar[HandlerThreads | None] = contextvars.ContextVar(
    "of_caller", default=None
)
"""Those of whoever calls the handler, for what middleware sends to a thread; None: nobody's."""

_Work = tuple[Callable[[], Any], Callable[[Ended], None]]


class HandlerThreads:
    """What is started begins at once. Its callers bound how much that is, by their slots."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One queue for all: a thread that is awake takes the next call without waking another.
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        # Threads that nothing in the queue is for.
        self._idle = 0
        self._closed = False
        self._waiting: set[_Waiting] = set()

    def start(self, call: Callable[[], Any], tell: Callable[[Ended], None]) -> None:
        """Make a call in a thread that is idle, or else in a new one.

        Args:
            call: may raise anything.
            tell: called by the same thread when the call has ended; must not raise.

        Raises:
            RuntimeError: the system gives no more threads, or they were shut down; the call is not
                made then, nor later.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("These threads were shut down; start nothing more.")
            if self._idle:
                self._idle -= 1
            else:
                # A daemon, for whoever hangs must not keep the process from its end.
                threading.Thread(target=self._serve, name="handler", daemon=True).start()
            self._work.put((call, tell))

    def let_go(self) -> None:
        """Have all who wait for the end of a call wait no longer: their process, or loop, ends."""
        for waiting in list(self._waiting):
            waiting.let_go()

    def shutdown(self) -> None:
        """End the threads, each as soon as it is idle; it waits for none, nor does anybody else."""
        self.let_go()
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._work.put(None)
            self._idle = 0

    async def wait(self, waiting: _Waiting) -> Ended:
        """How a call has ended that was started here.

        Raises:
            asyncio.CancelledError: see `let_go`.
        """
        self._waiting.add(waiting)
        try:
            return await waiting.end()
        finally:
            self._waiting.discard(waiting)

    async def outlast(self, other: Future[Any]) -> None:
        """Wait in the same way for a call in a thread of another's.

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
            # Free before the caller hears of it: its next call must find this thread.
            self._free()
            tell(ended)
            # Nothing of a handler's may live on in an idle thread.
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
    except BaseException as error:  # whatever it was, somebody waits for it
        return None, error
    finally:
        # The error's traceback holds this frame: it must not hold what holds the error.
        del call


async def in_thread(threads: HandlerThreads, call: Callable[..., Any], *args: Any) -> Any:
    """Make a call in one of the threads, in a copy of this context, and await its end.

    Whoever cancels this waits for that end, too: a thread cannot be stopped, and what it does must
    not go on beside the next attempt. A call that succeeds in spite of that keeps its value.

    Raises:
        BaseException: what the call raised.
        asyncio.CancelledError: the threads were told to `let_go`.
        RuntimeError: there is no thread for it.
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
        # The error's traceback holds this frame, too.
        del value, error, waiting, in_context


class _Waiting:
    """For the end of a call in another thread; `end` belongs to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._how: Ended | None = None
        self._over = False
        # It ends with None always, because a future that is given a StopIteration never ends.
        self._rung: asyncio.Future[None] = loop.create_future()

    def tell(self, how: Ended) -> None:
        """The call has ended; callable from any thread."""
        self._how = how
        self._ring()

    def let_go(self) -> None:
        """Wait no longer; callable from any thread."""
        self._ring()

    async def end(self) -> Ended:
        """How it has ended, however often the wait is cancelled."""
        while not self._over:
            try:
                await self._rung
            except asyncio.CancelledError:
                self._rung = self._loop.create_future()
        if self._how is None:
            raise asyncio.CancelledError
        return self._how

    def _ring(self) -> None:
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._over = True
        if not self._rung.done():
            self._rung.set_result(None)
