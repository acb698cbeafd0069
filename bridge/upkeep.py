"""What a leader looks after in Redis: room in its memory, and entries that can be trimmed.

Neither decides here: see `headroom` and `trimming`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from bridge.errors import RedisUnfit
from bridge.headroom import Headroom
from bridge.memory import MemoryWatch
from bridge.streams import Keys
from bridge.trimming import Trimmer


class Upkeep:
    """Both, while somebody leads.

    Args:
        retention: seconds for which streams keep what every group has acknowledged.
        memory_threshold: share of Redis' memory limit from which on nothing more is taken in.
        on_error: called with the error when Redis has become full.
        watch: called with each task of ours; none of them ends by an exception.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        retention: float,
        memory_threshold: float,
        on_error: Callable[[Exception], None],
        watch: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.trimmer = Trimmer(redis, keys, retention)
        self.headroom = Headroom(memory_threshold)
        self.memory = MemoryWatch(
            redis, self.headroom, on_full=self.trimmer.relieve, on_filled=self._filled
        )
        self.tasks: tuple[asyncio.Task[None], ...] = ()
        """Those of the present leadership, or of the last one."""
        self._on_error = on_error
        self._watch = watch

    @asynccontextmanager
    async def tending(self) -> AsyncIterator[None]:
        """Look after Redis until the block ends."""
        self.tasks = (
            asyncio.create_task(self.memory.run(), name="memory-watch"),
            asyncio.create_task(self.trimmer.run(), name="trimmer"),
        )
        for task in self.tasks:
            self._watch(task)
        try:
            yield
        finally:
            for task in self.tasks:
                task.cancel()

    def _filled(self) -> None:
        reason = "Redis is full, and Feishu keeps the events; start workers, or raise its maxmemory"
        self._on_error(RedisUnfit(reason))
