"""Logs how many events became dead letters because no worker of the group has a handler.

There may be thousands, so they are counted and logged once a minute.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from handlers.loggers import get_logger

log = get_logger("workers.unhandled")

PERIOD = 60.0
"""Seconds between two lines at least."""

SHOWN = 10
"""Types that one line names."""


class Burials:
    """Counts them for one worker; called by one thread.

    Args:
        dead_letters: the stream where they are.
        clock: monotonic seconds.
    """

    def __init__(self, dead_letters: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._dead_letters = dead_letters
        self._clock = clock
        self._types: Counter[str] = Counter()
        self._displaced = 0
        self._told = clock() - PERIOD

    def add(self, event_type: str) -> None:
        """An event of this type has become a dead letter."""
        self._types[event_type[:128]] += 1

    def tell(self, displaced: int) -> None:
        """Log what came since the last line, at most once a period.

        Args:
            displaced: dead letters, ever, that made room for newer ones.
        """
        if not self._types or self._clock() - self._told < PERIOD:
            return
        log.warning(
            "events.unhandled",
            count=self._types.total(),
            types=" ".join(name for name, _ in self._types.most_common(SHOWN)),
            displaced=displaced - self._displaced,
            dead_letters=self._dead_letters,
            hint="see them: flybridge dlq list --reason unhandled",
        )
        self._told, self._displaced = self._clock(), displaced
        self._types.clear()
