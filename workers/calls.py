"""Calls one handler, `def` or `async def`, with an event or with a batch, within its timeout.

What a handler returns or raises comes out here as it is; `failures.py` says what follows from it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import Any

from handlers.registry import Registration
from handlers.threads import HandlerThreads, in_thread
from workers.loops import drive

Around = Callable[[Registration], AbstractContextManager[Any]]
"""Makes the context in which a handler runs; its failures pass through it. For tracing."""


def directly(registration: Registration, given: Any, context: Any, around: Around | None) -> Any:
    """Call a handler in this thread, whose own event loop runs what turns out to be async."""
    if around is None:
        return _alone(registration, given, context)
    with around(registration):
        return _alone(registration, given, context)


def _alone(registration: Registration, given: Any, context: Any) -> Any:
    # What one event leaves in its context must not be found by the next.
    return copy_context().run(_directly, registration, given, context)


def _directly(registration: Registration, given: Any, context: Any) -> Any:
    result = registration.run(given, context)
    if result is None:
        return None
    # A decorator or a factory may hide an async handler behind a plain function.
    if inspect.isawaitable(result):
        result = drive(_within(result, registration.timeout))
    return _ran(result)


async def on_loop(
    registration: Registration,
    given: Any,
    context: Any,
    around: Around | None,
    threads: HandlerThreads,
) -> Any:
    """Call a handler from the running loop; a `def` runs in one of the threads."""
    with around(registration) if around else nullcontext():
        if registration.is_async:
            result = registration.run(given, context)
        else:
            result = await in_thread(threads, registration.run, given, context)
        if result is not None and inspect.isawaitable(result):
            result = await _within(result, registration.timeout)
        return _ran(result)


def _ran(result: Any) -> Any:
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("a generator was returned, so nothing has run; a handler must not yield")
    return result


async def _within(awaitable: Awaitable[Any], timeout: float) -> Any:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await awaitable
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"still running after {timeout:g} s; raise its timeout") from error
        raise


def is_being_cancelled() -> bool:
    """Whether somebody cancelled this task, rather than the handler an await of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
