"""A timer that is set again and again; of several times the soonest counts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flybridge.workers.dispatch.pool_protocol import Call, Pool

STEP = 0.001
"""Seconds that an alarm may be late."""


class Alarm:
    """A timer on the pool's loop, which also calls `answer`."""

    def __init__(self, pool: Pool, answer: Callable[[], None]) -> None:
        self._pool = pool
        self._answer = answer
        self._call: Call | None = None
        self._due = 0.0

    def set(self, wait: float | None) -> None:
        """Call `answer` in so many seconds at the latest; None changes nothing."""
        if wait is None:
            return
        due = time.monotonic() + wait
        if self._call and self._due <= due + STEP:
            return
        if self._call:
            self._call.cancel()
        # A timer of no delay would wait for the next look of Celery's loop, up to a second.
        self._call = self._pool.call_after(max(wait, STEP), self._go_off)
        self._due = due

    def forget(self) -> None:
        """The loop has dropped its timers."""
        self._call = None

    def _go_off(self) -> None:
        self._call = None
        self._answer()
