"""Threads for `def` handlers on an event loop: as many as are at work at once, and no fewer.

It is not concurrent.futures' ThreadPoolExecutor, whose callers wait for a thread while their time
runs, and whose process cannot end while a thread hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Work = tuple[Future[Any], Callable[[], Any]]


class HandlerThreads(Executor):
    """What is submitted begins at once. Its callers bound how much that is, by their slots.

    A thread whose caller has given up goes on until its handler ends, or the process does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One queue for all: a thread that is awake takes the next call without waking another.
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        # Threads that nothing in the queue is for.
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call it in a thread that is idle, or else in a new one.

        Raises:
            RuntimeError: the system gives no more threads, or this was shut down; the call is not
                made then, nor later.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("These threads were shut down; submit nothing more.")
            if self._idle:
                self._idle -= 1
            else:
                self._start()
            self._work.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, each as soon as it is idle; it never waits, and cancels nothing."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._work.put(None)
            self._idle = 0

    def _start(self) -> None:
        # A daemon, for whoever hangs must not keep the process from its end.
        threading.Thread(target=self._serve, name="handler", daemon=True).start()

    def _serve(self) -> None:
        while work := self._work.get():
            future, call = work
            result, error = _called(future, call)
            # Free before the caller hears of it: its next call must find this thread.
            self._free()
            _tell(future, result, error)
            # Nothing of a handler's may live on in an idle thread.
            del work, future, call, result, error

    def _free(self) -> None:
        with self._lock:
            if self._closed:
                self._work.put(None)
            else:
                self._idle += 1


def _called(future: Future[Any], call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    if not future.set_running_or_notify_cancel():
        return None, None
    try:
        return call(), None
    except BaseException as error:  # whatever it was, somebody waits for it
        return None, error
    finally:
        # The error's traceback holds this frame: it must not hold what holds the error.
        del future, call


def _tell(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def in_thread(executor: Executor, call: Callable[..., Any], *args: Any) -> Any:
    """Make a call in a thread of the executor, in a copy of this context, and await its end.

    Raises:
        BaseException: what the call raised.
    """
    in_context = contextvars.copy_context().run
    running = asyncio.get_running_loop()
    result, error = await running.run_in_executor(executor, in_context, _caught, call, *args)
    if error is not None:
        raise error
    return result


def _caught(call: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    try:
        return call(*args), None
    # As a value, because a future that is given a StopIteration never ends.
    except BaseException as error:
        return None, error
