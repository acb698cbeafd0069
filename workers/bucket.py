"""The bucket of a rate limit where there is no Celery: one token, filled at a rate.

Celery's workers have kombu's, of the same shape, which an operator may change.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Belongs to one thread.

    Args:
        rate: tokens a second, above 0.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._full_at = clock()

    def can_consume(self, tokens: int = 1) -> bool:
        """Take a token if there is one."""
        now = self._clock()
        if now < self._full_at:
            return False
        self._full_at = now + tokens / self.rate
        return True

    def expected_time(self, tokens: int = 1) -> float:
        """Seconds until there is one."""
        return max(0.0, self._full_at - self._clock())
