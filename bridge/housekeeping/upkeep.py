"""Looks after Redis while this bridge leads: its memory, and what can be trimmed from streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from flybridge.bridge.errors import ErrorListener
from flybridge.bridge.housekeeping.memory import MemoryWatch
from flybridge.bridge.housekeeping.trimming import Trimmer
from flybridge.bridge.process.task_watch import TaskWatch
from flybridge.bridge.store.streams import Keys


class Upkeep:
    """Watches the memory and trims the streams, while this bridge leads.

    Args:
        retention: seconds that streams keep what every group has acknowledged.
        memory_threshold: share of Redis' memory limit from which on no more events are taken in.
        listener: told when Redis has become full.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        tasks: TaskWatch,
        listener: ErrorListener,
        *,
        retention: float,
        memory_threshold: float,
    ) -> None:
        self.trimmer = Trimmer(redis, keys, retention)
        self.memory = MemoryWatch(redis, memory_threshold, self.trimmer, listener)
        self.tasks: tuple[asyncio.Task[None], ...] = ()
        """Those of the present leadership, or of the last one."""
        self._tasks = tasks

    @asynccontextmanager
    async def tending(self) -> AsyncIterator[None]:
        """Look after Redis until the block ends."""
        self.tasks = (
            self._tasks.start(self.memory.run(), "memory-watch"),
            self._tasks.start(self.trimmer.run(), "trimmer"),
        )
        try:
            yield
        finally:
            for task in self.tasks:
                task.cancel()
