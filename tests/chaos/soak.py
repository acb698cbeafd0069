"""Measures what must not grow with time: descriptors, threads, memory. It judges nothing."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean

import psutil

from tests.chaos.cast import Cast
from tests.chaos.history import Slope

PERIOD = 1.0
"""Seconds between two looks."""

SETTLING = 8.0
"""Seconds of a process' life that do not count: it is still taking its place."""

ALLOWED = {"descriptors": 30.0, "threads": 8.0, "MiB": 60.0}
"""More in the last quarter than in the first. A leader has more of all than a standby.

What a role's `growth` says comes on top."""


class Soak:
    """Looks at every actor once a second, if it is asked to."""

    def __init__(self, cast: Cast) -> None:
        self.measuring = False
        self._cast = cast
        self._seen: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._looked = 0.0

    def look(self, now: float) -> None:
        """Measure, if it is time."""
        if not self.measuring or now - self._looked < PERIOD:
            return
        self._looked = now
        for name, actor in self._cast.actors.items():
            if now - self._cast.started[name] > SETTLING:
                self._measure(name, actor.pid)

    def slopes(self) -> list[Slope]:
        """First and last quarter of each measure."""
        found = []
        for (name, unit), values in self._seen.items():
            quarter = len(values) // 4
            if quarter:
                first, last = mean(values[:quarter]), mean(values[-quarter:])
                allowed = ALLOWED[unit] + self._cast.roles[name].growth.get(unit, 0)
                found.append(Slope(f"{unit} of {name}", first, last, allowed))
        return found

    def _measure(self, name: str, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            measured = {
                "descriptors": process.num_fds(),
                "threads": process.num_threads(),
                "MiB": process.memory_info().rss / 2**20,
            }
        except psutil.Error:
            return  # it has just ended
        for unit, value in measured.items():
            self._seen[name, unit].append(value)
