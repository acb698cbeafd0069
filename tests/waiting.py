"""Waits until a condition comes true, instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PATIENCE = 20.0
"""Seconds that a condition may take, unless a test says otherwise."""


def until(
    condition: Callable[[], Any],
    within: float = PATIENCE,
    *,
    despite: tuple[type[Exception], ...] = (),
) -> Any:
    """Wait, blocking, until the condition is true; return what it gave.

    Args:
        despite: exceptions of the condition that count as not yet.

    Raises:
        AssertionError: it was not within so many seconds.
    """
    deadline = time.monotonic() + within
    while True:
        with suppress(*despite):
            if value := condition():
                return value
        _refuse_after(deadline, within)
        time.sleep(0.005)


async def eventually(condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """The same on the event loop; the condition may be a coroutine function.

    Raises:
        AssertionError: it was not within so many seconds.
    """
    deadline = time.monotonic() + within
    while not (value := await _asked(condition)):
        _refuse_after(deadline, within)
        await asyncio.sleep(0.005)
    return value


async def _asked(condition: Callable[[], Any]) -> Any:
    found = condition()
    return await found if inspect.isawaitable(found) else found


def _refuse_after(deadline: float, within: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {within:g} s")
