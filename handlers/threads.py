"""Threads for `def` handlers on an event loop: as many as are at work at once, and no fewer.

They are not concurrent.futures' ThreadPoolExecutor, whose callers wait for a thread while their
time runs, and whose process cannot end while a thread hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

Ended = tuple[Any, BaseException | None]
"""What a call returned, or what it raised."""

_Work = tuple[Callable[[], Any], Callable[[Ended], None]]


class HandlerThreads:
    """What is started begins at once. Its callers bound how much that is, by their slots.

    A thread whose caller has given up goes on until its handler ends, or the process does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One queue for all: a thread that is awake takes the next call without waking another.
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        # Threads that nothing in the queue is for.
        self._idle = 0
        self._closed = False

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

    def shutdown(self) -> None:
        """End the threads, each as soon as it is idle; it waits for none."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._work.put(None)
            self._idle = 0

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

    Raises:
        BaseException: what the call raised.
        RuntimeError: there is no thread for it.
    """
    loop = asyncio.get_running_loop()
    # It ends with a value always, because a future that is given a StopIteration never ends.
    ended: asyncio.Future[Ended] = loop.create_future()
    in_context = partial(contextvars.copy_context().run, call, *args)
    threads.start(in_context, partial(_tell, loop, ended))
    value, error = await ended
    try:
        if error is not None:
            raise error
        return value
    finally:
        # The error's traceback holds this frame, too.
        del value, error, ended, in_context


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[Ended], how: Ended) -> None:
    # A loop that is closed has nobody who waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, ended, how)


def _set(ended: asyncio.Future[Ended], how: Ended) -> None:
    if not ended.done():
        ended.set_result(how)
