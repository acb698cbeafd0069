"""Redis' clock, as this host's monotonic clock tells it between two looks; notices its jumps.

Redis stamps locks, idle times and retries by the wall clock of its host. When that goes ahead, all
of them end early; when it is back, those stamped meanwhile never seem to end (see `mending.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from redis import Redis
from redis.exceptions import ResponseError

from flybridge.bridge.process.boottime import boottime
from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.spoilt_keys import SpoiltKeys
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers.loggers import get_logger

JUMP = 1.0
"""Seconds by which a clock is off before that is called a jump; NTP slews by less."""

UNSURE = 60_000
"""Ms by which an event may seem to be received before it was created; by more, nothing is sure."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Offset:
    """Unix seconds of Redis less monotonic seconds of this host: between these two, for a call
    takes time.
    """

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class _Known:
    """The offset now, and before the clock went ahead. Replaced as a whole, for threads read it."""

    now: _Offset
    before: _Offset | None = None
    until: float = 0.0
    """The last Unix seconds of Redis before it went ahead."""

    def instant(self, unix: float) -> float:
        """The monotonic instant at which Redis noted so many Unix seconds."""
        offset = self.before if self.before and unix <= self.until else self.now
        return unix - offset.middle


class Mending(Protocol):
    """Puts right what Redis stamped while its clock was ahead."""

    def mend(self, back: int) -> None:
        """Go on with it.

        Args:
            back: how often the clock went back, 0 if no stamp can be wrong; told at each look.

        Raises:
            redis.RedisError: go on later.
        """


class RedisClock:
    """Redis' clock for one worker; `look` is called by one thread, the rest by any.

    Args:
        group: consumer group, whose workers notice together that the clock went back.
        mending: of this worker; None: somebody else's business.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        mending: Mending | None = None,
        spoilt: SpoiltKeys | None = None,
        monotonic: Callable[[], float] = boottime,
    ) -> None:
        self._redis = redis
        self._key = keys.clock(group)
        self._mending = mending
        self._spoilt = spoilt or SpoiltKeys(redis)
        self._monotonic = monotonic
        self._known: _Known | None = None

    def know(self) -> None:
        """Ask Redis, unless it has been asked before.

        Raises:
            redis.RedisError: nothing is known; ask again.
        """
        if self._known is None:
            self._known = _Known(self._ask()[0])

    def born(self, entry: Entry, entry_id: str) -> float | None:
        """The instant of this host's `boottime` at which an event's age begins; None if unknown.

        Two measures count, and the one that makes the event younger holds, for a clock may be
        wrong: the time since its creation, by Redis' clock now; and the time in its stream, by
        Redis' clock alone, plus the way to the bridge, by the bridge's clock.
        """
        known = self._known
        if known is None:
            return None
        by_creation = [entry.since / 1000 - known.now.middle] if entry.since else []
        return max(by_creation + _by_way(known, entry, entry_id), default=None)

    def look(self) -> bool:
        """Ask Redis for its time, and mend what is wrong where that went back.

        Returns:
            False if it has gone ahead since the last look: what ended by that has not ended.

        Raises:
            redis.RedisError: nothing is known; ask again.
        """
        before = self._known
        offset, back = self._ask()
        jump = _jump(before.now, offset) if before else 0.0
        if before and jump > 0:
            until = before.now.middle + self._monotonic()
            self._known = _Known(offset, before.now, until)
        elif before and not jump:
            self._known = replace(before, now=offset)
        else:
            self._known = _Known(offset)
        if jump:
            log.warning("redis_clock.jumped", seconds=round(jump, 1), hint="see that the host of "
                        "Redis keeps its time by NTP, and slews instead of stepping")  # fmt: skip
        if self._mending and jump <= 0:
            self._mending.mend(back)
        return jump <= 0

    def _ask(self) -> tuple[_Offset, int]:
        asked = self._monotonic()
        now, back, error = run_all(self._redis, [Call(load("clock"), (self._key,), ())])[0]
        if error:
            self._spoilt.tell({self._key: "hash"}, ResponseError(error.decode()))
        return _Offset(now / 1000 - self._monotonic(), now / 1000 - asked), back


def _jump(before: _Offset, after: _Offset) -> float:
    """Seconds that the clock went ahead for sure, or back if below 0; 0 for none."""
    if after.low - before.high > JUMP:
        return after.low - before.high
    return after.high - before.low if before.low - after.high > JUMP else 0.0


def _by_way(known: _Known, entry: Entry, entry_id: str) -> list[float]:
    """When it was created, as its way tells; empty where that says nothing."""
    ms = entry_id.partition("-")[0]
    created = entry.created_at or entry.received_at
    on_the_way = 0 if entry.replayed_at else entry.received_at - created
    if not ms.isdecimal() or on_the_way < -UNSURE:
        return []
    return [known.instant(int(ms) / 1000) - max(0, on_the_way) / 1000]
