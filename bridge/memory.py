"""Watches Redis' memory and says so when it is full, and when it has room again. What full means is
`headroom`'s matter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from bridge.cancellation import heed_cancellation
from bridge.headroom import NOT_MEASURED, Headroom, Memory
from handlers.loggers import get_logger

PERIOD = 1.0
"""Seconds between two looks."""

_PATIENCE = 2.0

log = get_logger("bridge.memory")


class MemoryWatch:
    """Asks Redis for its memory while somebody runs `run`.

    Args:
        headroom: the decision; asked by whoever publishes.
        on_full: called at each look that finds Redis full.
        on_filled: called when it has become full.
    """

    def __init__(
        self,
        redis: Redis,
        headroom: Headroom,
        *,
        on_full: Callable[[], None] = lambda: None,
        on_filled: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.headroom = headroom
        self._redis = redis
        self._on_full, self._on_filled = on_full, on_filled
        self._clock = clock
        self._said = False
        self._forbade = False

    def refused(self) -> None:
        """Redis refused a write for want of memory."""
        self.headroom.refused(self._clock())
        self._say(refused=True)

    async def run(self) -> None:
        """Look every `PERIOD` seconds, until cancelled."""
        try:
            while True:
                await self._look()
                if self.headroom.full:
                    self._on_full()
                await asyncio.sleep(PERIOD)
        finally:
            self.headroom.forget()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
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
        """Log a change; `refused`: Redis itself said so, since the last measurement."""
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
            self._on_filled()
        else:
            log.info("redis.relieved", used=memory.used, maxmemory=memory.limit)


def _memory(info: Mapping[str, Any]) -> Memory:
    """Redis: buffers of replicas and of the append-only file do not count against `maxmemory`."""
    exempt = int(info.get("mem_not_counted_for_evict", 0))
    return Memory(int(info["used_memory"]) - exempt, int(info.get("maxmemory", 0)))


def _is_lasting(error: Exception) -> bool:
    """Whether INFO is forbidden to us, or a managed Redis does not have it; BUSY passes."""
    return isinstance(error, NoPermissionError) or "unknown command" in str(error)
