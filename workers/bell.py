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


class Bell:
    """Wakes the loop once for any number of calls between two answers."""

    def __init__(self) -> None:
        self.answer: Callable[[], None] = lambda: None
        """Called by the loop."""
        self.rung_at: float | None = None
        """Monotonic seconds of a ring that was not answered yet."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def hang(self, hub: Any) -> None:
        """Have this hub answer; to be repeated after each reset of the hub."""
        hub.add_reader(self._reader, self._heard)
        self.rung_at = None
        self.ring()

    def ring(self) -> None:
        """Have the loop call `answer` soon."""
        if self.rung_at is not None:
            return
        self.rung_at = time.monotonic()
        # A full pipe rings already.
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # Before the answer: what comes up while it works must ring again.
        self.rung_at = None
        self.answer()
