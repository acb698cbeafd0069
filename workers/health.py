"""Whether Redis is well, as several threads meet it: when an outage begins, and when it is over.

One outage is all failures, of whichever thread, until nothing has failed for a while and everyone
who failed has succeeded since. It asks Redis nothing and knows no clock.
"""

from __future__ import annotations

import math
import threading

FORGOTTEN = 30.0
"""Seconds after its failure that the end waits for somebody's success; longer than a call takes.
Whoever asks nothing more would keep the outage up for ever."""


class Health:
    """Callable from any thread.

    Args:
        calm: seconds without a failure before an outage is over.
    """

    def __init__(self, calm: float) -> None:
        self._calm = calm
        self._lock = threading.Lock()
        self._failing: dict[str, float] = {}
        self._failed_at = -math.inf
        self._well_since = -math.inf
        self._is_out = False

    def failed(self, doing: str, asked: float, now: float) -> bool:
        """A call failed; True if this begins an outage.

        Args:
            doing: who asked.
            asked: when the call was begun. What was asked before the end of an outage belongs to
                it: a half-open connection is noticed by its users one after the other.
            now: of the same clock, in seconds.
        """
        with self._lock:
            self._failing[doing] = self._failed_at = now
            if self._is_out or asked < self._well_since:
                return False
            self._is_out = True
            return True

    def succeeded(self, doing: str, now: float) -> bool:
        """A call succeeded; True if this ends an outage."""
        with self._lock:
            self._failing.pop(doing, None)
            if not self._is_out or now - self._failed_at < self._calm:
                return False
            if any(now - failed < FORGOTTEN for failed in self._failing.values()):
                return False
            self._failing.clear()
            self._is_out = False
            self._well_since = now
            return True
