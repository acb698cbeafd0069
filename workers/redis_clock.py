"""Redis' clock, as this host's monotonic one tells it between two looks; and what follows when it
jumps.

Redis stamps by the wall clock of its host: locks, idle times, retries. Ahead, it lets all of them
end early; back again, those stamped meanwhile never seem to end. See `mending.py` for the latter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from redis import Redis

from bridge.streams import Keys
from workers.mending import Mending
from workers.scripts import Call, load, run_all

JUMP = 1.0
"""Seconds by which a clock is off before that is called a jump; NTP slews by less."""

log = structlog.get_logger("workers.redis_clock")


@dataclass(frozen=True, slots=True)
class _Offset:
    """Unix seconds of Redis less monotonic seconds of ours: between these two, for a call lasts."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


class RedisClock:
    """Of one worker; all but `look` may be called from any thread.

    Args:
        redis: a client whose commands may be repeated.
        keys: of the app.
        group: consumer group, whose workers notice together that the clock went back.
        mending: of this worker; None: somebody else's business.
        monotonic: seconds.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        mending: Mending | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._key = keys.clock(group)
        self._mending = mending
        self._monotonic = monotonic
        self._offset: _Offset | None = None

    def know(self) -> None:
        """Ask Redis, unless it has been asked before.

        Raises:
            redis.RedisError: nothing is known; ask again.
        """
        if self._offset is None:
            self._offset, _ = self._ask()

    def born(self, unix_ms: int) -> float | None:
        """The monotonic instant, on this host, of a Unix time by Redis; None if it is 0, which
        stands for unknown, or if Redis has not been asked yet."""
        offset = self._offset
        return unix_ms / 1000 - offset.middle if unix_ms and offset else None

    def look(self) -> bool:
        """Ask Redis for its time, and mend what is wrong where that went back.

        Returns:
            False if it has gone ahead since the last look: what ended by that has not ended.

        Raises:
            redis.RedisError: nothing is known; ask again.
        """
        before = self._offset
        offset, back = self._ask()
        self._offset = offset
        if self._mending:
            self._mending.mend(back)
        jump = _jump(before, offset) if before else 0.0
        if jump:
            log.warning("redis_clock.jumped", seconds=round(jump, 1), hint="see that the host of "
                        "Redis keeps its time by NTP, and slews instead of stepping")  # fmt: skip
        return jump <= 0

    def _ask(self) -> tuple[_Offset, int]:
        asked = self._monotonic()
        now, back = run_all(self._redis, [Call(load("clock"), (self._key,), ())])[0]
        return _Offset(now / 1000 - self._monotonic(), now / 1000 - asked), back


def _jump(before: _Offset, after: _Offset) -> float:
    """Seconds that the clock went ahead for sure, or back if below 0; 0 for none."""
    if after.low - before.high > JUMP:
        return after.low - before.high
    return after.high - before.low if before.low - after.high > JUMP else 0.0
