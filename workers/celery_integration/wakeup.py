"""Wakes Celery's event loop, from any thread and from the loop itself.

`hub.call_soon` is not enough: what it is given inside a callback waits for the next poll to end, up
to a second later, and so does a timer of no delay (kombu 5.7).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class WakeUp:
    """Wakes the loop once for any number of calls between two answers."""

    def __init__(self) -> None:
        self.answer: Callable[[], None] = lambda: None
        """Called by the loop."""
        self.woken_at: float | None = None
        """Monotonic seconds of the first wake-up that was not answered yet."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def attach(self, hub: Any) -> None:
        """Have this hub answer; to be repeated after each reset of the hub."""
        hub.add_reader(self._reader, self._heard)
        self.woken_at = None
        self.wake()

    def wake(self) -> None:
        """Have the loop call `answer` soon."""
        if self.woken_at is not None:
            return
        self.woken_at = time.monotonic()
        # A full pipe wakes it already.
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # Before the answer: what comes up while it works must wake it again.
        self.woken_at = None
        self.answer()
