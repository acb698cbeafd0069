"""Delays between attempts to connect: full jitter, growing, capped. Random, otherwise pure."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST = 1.0
"""Seconds; upper bound of the first delay, unless another is set. The SDKs wait up to 30 s: a
needless gap at each routine close."""

LONGEST = 120.0
"""Seconds; no delay is longer, whatever the server asks for."""


class Backoff:
    """The delays of one run of failures; `reset` after a success.

    Args:
        first: seconds; upper bound of the first delay.
    """

    def __init__(
        self, chance: Callable[[], float] = random.random, *, first: float = FIRST
    ) -> None:
        self.cap = LONGEST
        self._chance = chance
        self._first = self._bound = min(first, LONGEST)

    def next(self) -> float:
        """Seconds to wait: anything from 0 to a bound that doubles each time up to `cap`."""
        bound = min(self._bound, self.cap)
        self._bound = min(self._bound * 2, LONGEST)
        return self._chance() * bound

    def reset(self) -> None:
        self._bound = self._first

    def limit(self, interval: float) -> None:
        """Take the server's ReconnectInterval as a cap; at least `first`, at most `LONGEST`."""
        self.cap = min(max(interval, self._first), LONGEST)
