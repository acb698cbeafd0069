"""Delays between attempts to connect: full jitter, growing, capped. Random, otherwise pure."""

from __future__ import annotations

import random
from collections.abc import Callable

from bridge.bounds import LONGEST_DELAY

FIRST = 1.0
"""Seconds; upper bound of the first delay, unless another is set. The SDKs wait up to 30 s: a
needless gap at each routine close."""


class Backoff:
    """The delays of one run of failures; `reset` after a success.

    Args:
        first: seconds; upper bound of the first delay.
    """

    def __init__(
        self, chance: Callable[[], float] = random.random, *, first: float = FIRST
    ) -> None:
        self.cap = LONGEST_DELAY
        self._chance = chance
        self._first = self._bound = min(first, LONGEST_DELAY)

    def next(self) -> float:
        """Seconds to wait: anything from 0 to a bound that doubles each time up to `cap`."""
        bound = min(self._bound, self.cap)
        self._bound = min(self._bound * 2, LONGEST_DELAY)
        return self._chance() * bound

    def reset(self) -> None:
        self._bound = self._first

    def limit(self, interval: float) -> None:
        """Cap delays by the server's ReconnectInterval; at least `first`."""
        self.cap = min(max(interval, self._first), LONGEST_DELAY)
