"""Which rights Redis has denied of late, so that each is told of once and not at every command."""

from __future__ import annotations

import math
import threading
import time

from bridge.redis_rights import kind

FORGOTTEN = 60.0
"""Seconds without a denial after which the next one is news again."""


class Denials:
    """Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met: dict[str, float] = {}

    def is_news(self, error: Exception) -> bool:
        """Note this denial; whether it is to be told of."""
        now, right = time.monotonic(), kind(error)
        with self._lock:
            before = self._met.get(right, -math.inf)
            self._met[right] = now
        return now - before > FORGOTTEN
