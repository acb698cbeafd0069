"""How many entries a worker may hold unsettled: what its pool finishes in a moment.

A worker that reads far ahead of slow handlers hoards events that an idle worker could have run; one
that reads one by one pays a round trip an event.
"""

from __future__ import annotations

from math import exp

LOOK_AHEAD = 0.2
"""Seconds of work to hold."""

MEMORY = 0.25
"""Seconds over which the rate is averaged."""

MAX_WINDOW = 2048
"""Entries; bounds memory and the time of one pipeline."""


class Window:
    """A window that grows with the rate at which events are settled.

    Args:
        now: seconds of a monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self._rate = 0.0
        self._settled = 0
        self._since = now

    def settled(self, count: int, now: float) -> None:
        """Take note of `count` settled events."""
        self._settled += count
        elapsed = now - self._since
        if elapsed < MEMORY / 10:
            return
        weight = 1 - exp(-elapsed / MEMORY)
        self._rate += weight * (self._settled / elapsed - self._rate)
        self._settled, self._since = 0, now

    def size(self, slots: int) -> int:
        """Entries to hold for a pool that runs `slots` at once."""
        return max(slots, min(MAX_WINDOW, int(self._rate * LOOK_AHEAD)))
