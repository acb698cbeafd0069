"""When an event that was not acked is pushed again."""

from __future__ import annotations

from dataclasses import dataclass

RUNGS = (15.0, 300.0, 3600.0, 21_600.0)
"""Seconds before each re-push. Feishu: 15 s, 5 min, 1 h, 6 h, at most 4 retries."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The re-push schedule on a clock that may run faster than the real one."""

    rungs: tuple[float, ...] = RUNGS
    clock_scale: float = 1.0
    """Seconds of the ladder that pass in one real second."""

    def __post_init__(self) -> None:
        if self.clock_scale <= 0:
            raise ValueError(f"clock_scale is {self.clock_scale}; use a number above 0")

    def wait(self, climbed: int) -> float | None:
        """Real seconds until the next push after `climbed` rungs; None: the ladder is used up."""
        if climbed >= len(self.rungs):
            return None
        return self.rungs[climbed] / self.clock_scale
