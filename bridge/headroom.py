"""Whether Redis has room for more events. A decision with a memory of its own; it asks nobody.

Redis refuses writes at `maxmemory`. Feishu keeps an event for seven hours, so the bridge stops
taking them in before that, and what room is left is for the workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RELIEF = 0.97
"""Share of the threshold below which there is room again: no flicker at the threshold itself."""

HOLD = 5.0
"""Seconds for which a refused write counts, whatever was measured: the limit may be hidden."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Redis' memory in bytes, as `maxmemory` counts it."""

    used: int
    limit: int
    """0: none, or not known."""

    @property
    def share(self) -> float:
        """Of the limit; 0 without one."""
        return self.used / self.limit if self.limit else 0.0


NOT_MEASURED = Memory(0, 0)


class Headroom:
    """Full or not; instants are seconds of the caller's clock.

    Args:
        threshold: share of the limit from which on Redis is full.
    """

    def __init__(self, threshold: float) -> None:
        self.full = False
        self.memory = NOT_MEASURED
        """As last measured."""
        self._threshold = threshold
        self._refused_at = -math.inf

    def forget(self) -> None:
        """Nobody looks any more: what was known says nothing about later."""
        self.full, self.memory, self._refused_at = False, NOT_MEASURED, -math.inf

    def refused(self, now: float) -> None:
        """Redis refused a write for want of memory."""
        self.full, self._refused_at = True, now

    def measured(self, memory: Memory, now: float) -> None:
        """Take a measurement in."""
        self.memory = memory
        if memory.share >= self._threshold:
            self.full = True
        elif memory.share < self._threshold * RELIEF and now >= self._refused_at + HOLD:
            self.full = False
