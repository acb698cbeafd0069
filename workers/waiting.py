"""Claimed events that nobody runs yet, by what they wait for: a slot, a limit, or an empty pool.

It holds them; `handover.py` takes them out, and the intake what has to be given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from workers.limits import Limits
from workers.poison import Suspects

if TYPE_CHECKING:
    from workers.guard import Run


class Waiting:
    """Filled from any thread, emptied by one.

    Args:
        limits: of the tasks.
        is_suspect: whether an event must run alone.
    """

    def __init__(self, limits: Limits, is_suspect: Callable[[Run], bool]) -> None:
        self._is_suspect = is_suspect
        self.limits = limits
        self.suspects = Suspects()
        self.ready: deque[Run] = deque()
        """For the next free slot, from the left."""

    def add(self, runs: Iterable[Run]) -> None:
        """Claimed just now."""
        self.ready.extend(self._others(runs))

    def put_back(self, runs: Iterable[Run]) -> None:
        """Taken out, but their handlers never started."""
        self.ready.extendleft(self._others(runs))

    def drain(self) -> list[Run]:
        """Take out everything."""
        queues = (self.ready, self.suspects.waiting)
        found = [runs.popleft() for runs in queues for _ in range(len(runs))]
        return found + self.limits.drain()

    def _others(self, runs: Iterable[Run]) -> list[Run]:
        """Those that wait for neither a limit nor solitude."""
        unsuspected = []
        for run in runs:
            if (run.crashes or run.attempt > 1) and self._is_suspect(run):
                self.suspects.add(run)
            else:
                unsuspected.append(run)
        return self.limits.park(unsuspected)
