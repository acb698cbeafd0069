"""Watches Redis' memory, and decides whether it has room for more events.

Redis refuses writes at `maxmemory`. Feishu keeps an event for seven hours, so the bridge stops
taking events in before that, and leaves the rest of the room to the workers.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from flybridge.bridge.errors import ErrorListener, RedisUnfit
from flybridge.bridge.process.cancellation import heed_cancellation
from flybridge.handlers.loggers import get_logger

LOOK_PERIOD = 1.0
"""Seconds between two looks."""

_INFO_TIMEOUT = 2.0

RELIEF = 0.97
"""Share of the threshold below which there is room again, so that the state does not flicker."""

HOLD = 5.0
"""Seconds for which a refused write counts, whatever was measured: the limit may be hidden."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Memory:
    """Redis' memory in bytes, as `maxmemory` counts it."""

    used: int
    limit: int
    """0: none, or not known."""

    @property
    def share(self) -> float:
        """Of the limit; 0 without one."""
        return self.used / self.limit if self.limit else 0.0


NOT_MEASURED = Memory(0, 0)


class Headroom:
    """Decides whether Redis is full, from measurements and refusals; instants are in seconds.

    Args:
        threshold: share of the limit from which on Redis is full.
    """

    def __init__(self, threshold: float) -> None:
        self.full = False
        self.memory = NOT_MEASURED
        """As last measured."""
        self._threshold = threshold
        self._refused_at = -math.inf

    def forget(self) -> None:
        """Forget everything, when nobody measures any more."""
        self.full, self.memory, self._refused_at = False, NOT_MEASURED, -math.inf

    def refused(self, now: float) -> None:
        """Redis refused a write for want of memory."""
        self.full, self._refused_at = True, now

    def measured(self, memory: Memory, now: float) -> None:
        """Take in a measurement."""
        self.memory = memory
        if memory.share >= self._threshold:
            self.full = True
        elif memory.share < self._threshold * RELIEF and now >= self._refused_at + HOLD:
            self.full = False


class Trimmer(Protocol):
    """Makes room."""

    def relieve(self) -> None: ...


class MemoryWatch:
    """Measures the memory of Redis while `run` runs.

    Args:
        threshold: share of Redis' memory limit from which on it is full.
        trimmer: asked for room at each look that finds Redis full.
        listener: told when Redis has become full.
        period: seconds between two looks.
    """

    def __init__(
        self,
        redis: Redis,
        threshold: float,
        trimmer: Trimmer,
        listener: ErrorListener,
        *,
        period: float = LOOK_PERIOD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.headroom = Headroom(threshold)
        self._redis, self._trimmer = redis, trimmer
        self._listener, self._period, self._clock = listener, period, clock
        self._said = False
        self._forbade = False

    @property
    def full(self) -> bool:
        """Whether Redis has no room for more events."""
        return self.headroom.full

    def refused(self) -> None:
        """Redis refused a write for want of memory."""
        self.headroom.refused(self._clock())
        self._say(refused=True)

    async def run(self) -> None:
        """Look every `period` seconds, until cancelled."""
        try:
            while True:
                await self._look()
                if self.full:
                    self._trimmer.relieve()
                await asyncio.sleep(self._period)
        finally:
            self.headroom.forget()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(_INFO_TIMEOUT):
                memory = _memory(await self._redis.info("memory"))
        except (RedisError, OSError) as error:
            heed_cancellation()
            if not _is_lasting(error):
                return  # no news; what is published meanwhile fails by itself
            self._forbidden(error)
            memory = NOT_MEASURED
        heed_cancellation()
        self.headroom.measured(memory, self._clock())
        self._say()

    def _forbidden(self, error: Exception) -> None:
        if not self._forbade:
            self._forbade = True
            cure = "allow INFO to this user; until then Redis counts as full only when it says so"
            log.warning("memory.unreadable", error=str(error), cure=cure)

    def _say(self, *, refused: bool = False) -> None:
        """Log a change. `refused`: Redis itself said so, since the last measurement."""
        if self.headroom.full is self._said:
            return
        self._said = self.headroom.full
        memory = self.headroom.memory
        if self._said:
            log.warning(
                "redis.full",
                used=memory.used,
                maxmemory=memory.limit,
                refused=refused,
                cure="Feishu keeps the events and sends them again; start workers, see "
                "group.lagging and stream.unread for what holds entries, or raise maxmemory",
            )
            cure = "start workers, or raise its maxmemory"
            fact = "Redis is full, and Feishu keeps the events"
            self._listener.errored(RedisUnfit(f"{fact}; {cure}"))
        else:
            log.info("redis.relieved", used=memory.used, maxmemory=memory.limit)


def _memory(info: Mapping[str, Any]) -> Memory:
    """Buffers of replicas and of the append-only file do not count against `maxmemory`."""
    exempt = int(info.get("mem_not_counted_for_evict", 0))
    return Memory(int(info["used_memory"]) - exempt, int(info.get("maxmemory", 0)))


def _is_lasting(error: Exception) -> bool:
    """Whether INFO is forbidden to us, or unknown to a managed Redis; BUSY passes."""
    return isinstance(error, NoPermissionError) or "unknown command" in str(error)
