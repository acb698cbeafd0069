"""Calls one handler, `def` or `async def`, with an event or with a batch, within its timeout.

What the handler returns or raises is passed on; `failures.py` says what follows from it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any, cast

from flybridge.handlers.calling.threads import HandlerThreads, in_thread, of_caller
from flybridge.handlers.registry import Registration
from flybridge.workers.run.loops import Offloaded, drive, threads_of
from flybridge.workers.run.watch import here

Around = Callable[[Registration], AbstractContextManager[Any]]
"""Makes the context in which a handler runs; its failures pass through it. For tracing."""

CANCEL_AGAIN_AFTER = 15.0
"""Seconds after which a coroutine that was cancelled and goes on is cancelled once more."""


def directly(registration: Registration, given: Any, context: Any, around: Around | None) -> Any:
    """Call a handler in this thread, whose own event loop runs what turns out to be async."""
    if around is None:
        return _alone(registration, given, context)
    with around(registration):
        return _alone(registration, given, context)


def _alone(registration: Registration, given: Any, context: Any) -> Any:
    # What one event leaves in its context must not reach the next.
    return copy_context().run(_directly, registration, given, context)


def _directly(registration: Registration, given: Any, context: Any) -> Any:
    watch, returned = here(), False
    call = watch.begin(registration, given, context)
    try:
        result = registration.run(given, context)
        returned = result is None
    finally:
        # First, and in one step: the soft time limit may strike in whatever Python comes next.
        watch.calls.discard(call)
        watch.ended(call, returned=returned)
    if result is None:
        return None
    # A decorator or a factory may hide an async handler in a plain function.
    if inspect.isawaitable(result):
        threads = threads_of(os.getpid())
        result = drive(_within(partial(_itself, result), registration, given, context, threads))
    return _ran(result)


async def on_loop(
    registration: Registration,
    given: Any,
    context: Any,
    around: Around | None,
    threads: HandlerThreads,
    succeeded: Callable[[], None],
) -> Any:
    """Call a handler from the running loop; a `def` runs in one of the threads.

    Args:
        succeeded: called by that thread, for a blocked loop would notice the success late.
    """
    with around(registration) if around else nullcontext():
        if registration.is_async:
            # For `def` handlers within middleware that is async.
            of_caller.set(threads)
            start = partial(registration.run, given, context)
            return _ran(await _within(start, registration, given, context, threads))
        result = await in_thread(threads, _watched, registration, given, context, succeeded)
        if result is not None and inspect.isawaitable(result):
            start = partial(_itself, result)
            result = await _within(start, registration, given, context, threads)
        return _ran(result)


def _itself(result: Any) -> Any:
    return result


def _watched(
    registration: Registration, given: Any, context: Any, succeeded: Callable[[], None]
) -> Any:
    watch, returned = here(), False
    call = watch.begin(registration, given, context)
    try:
        result = registration.run(given, context)
        returned = result is None
        if returned:
            succeeded()
        return result
    finally:
        watch.calls.discard(call)
        watch.ended(call, returned=returned)


def _ran(result: Any) -> Any:
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("a generator was returned, so nothing has run; a handler must not yield")
    return result


async def _within(
    start: Callable[[], Any],
    registration: Registration,
    given: Any,
    context: Any,
    threads: HandlerThreads,
) -> Any:
    """Await what `start` returns within the handler's timeout; a late success counts as a success.

    `start` is called here so that the time before the first `await` counts, too.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    offloaded, watch, returned = Offloaded(), here(), False
    call = watch.begin(registration, given, context, task)
    limit = _Limit(task, registration.timeout)
    try:
        result = start()
        if inspect.isawaitable(result):
            result = await result
        returned = True
        return result
    except (Exception, asyncio.CancelledError) as error:
        await offloaded.end(threads)
        if limit.lift() and isinstance(error, asyncio.CancelledError):
            seconds = f"{registration.timeout:g} s"
            raise TimeoutError(f"still running after {seconds}; raise its timeout") from error
        raise
    finally:
        limit.lift()
        watch.calls.discard(call)
        watch.ended(call, returned=returned)


class _Limit:
    """Cancels a task when its time is up, and again as long as it does not end by that."""

    def __init__(self, task: asyncio.Task[Any], seconds: float) -> None:
        self._task = task
        self._before = task.cancelling()
        self._struck = 0
        self._next = task.get_loop().call_later(seconds, self._strike)

    def lift(self) -> bool:
        """Stop cancelling the task; True if it was cancelled, and by this limit only."""
        self._next.cancel()
        struck, self._struck = self._struck, 0
        for _ in range(struck):
            self._task.uncancel()
        return struck > 0 and self._task.cancelling() <= self._before

    def _strike(self) -> None:
        self._struck += 1
        self._next = self._task.get_loop().call_later(CANCEL_AGAIN_AFTER, self._strike)
        self._task.cancel()


def is_being_cancelled() -> bool:
    """Whether this task was cancelled from outside, not only an await inside the handler."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
