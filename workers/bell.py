"""A bell that calls Celery's event loop, from any thread and from the loop itself.

`hub.call_soon` will not do: what it is given inside a callback waits for the next poll to end, up
to a second later, and so does a timer of no delay (kombu 5.7).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Bell:
    """Rings once for any number of calls between two answers.

    Args:
        answer: called by the loop.
    """

    def __init__(self, answer: Callable[[], None]) -> None:
        self._answer = answer
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._rung = False

    def hang(self, hub: Any) -> None:
        """Have this hub answer; a hub that was reset has forgotten its bells."""
        hub.add_reader(self._reader, self._heard)
        self._rung = False
        self.ring()

    def ring(self) -> None:
        """Have the loop call `answer` soon."""
        if self._rung:
            return
        self._rung = True
        # A full pipe rings already.
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # Before the answer: what comes up while it works must ring again.
        self._rung = False
        self._answer()
