"""Removes from the streams what every group has acknowledged and is older than the retention.

What a group has not acknowledged stays, however much that is. Whole nodes of a stream go at once,
up to the oldest entry that a group still needs. Behind such an entry, which may wait a week for its
retry, finished entries are removed one by one.

Each script judges and removes in one step, so workers may read, acknowledge and create groups
meanwhile, and two bridges that trim at once do no harm: no fencing is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from flybridge.bridge.housekeeping.backlog import NOBODY, Backlog, Group, published, text
from flybridge.bridge.process.cancellation import heed_cancellation
from flybridge.bridge.store.redis_rights import cure, is_denied
from flybridge.bridge.store.scripts import Call, Script, load, run_one
from flybridge.bridge.store.streams import Keys, subscriber
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.types import domain

ROUND_PERIOD = 30.0
"""Seconds between two rounds at most."""

STEP = 1_000
"""Entries that one call removes at most: half a millisecond in which Redis serves nobody else."""

FRUITLESS = 50
"""Pages without a finished entry after which a look behind held ones stops until the next round. A
page takes Redis about a millisecond."""

_TRIM, _BEHIND = load("trim"), load("trim_behind")

_OPTIONAL = "".join(line for line in _TRIM.text.splitlines() if "try('" in line)

log = get_logger(__name__)


class Trimmer:
    """Trims the streams of one app.

    A group that has subscribed to a type holds its stream even before it has joined it.

    Args:
        redis: a client that may repeat commands.
        retention: seconds that an entry stays although every group has acknowledged it. Replay
            streams have no retention.
    """

    def __init__(self, redis: Redis, keys: Keys, retention: float) -> None:
        self.trimmed = 0
        """Entries removed so far."""
        self.period = min(ROUND_PERIOD, retention / 2)
        """Seconds between two rounds."""
        self.backlog = Backlog(redis, keys, retention)
        """What waits too long."""
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self._looked: dict[str, bytes] = {}
        self._short_of_memory = asyncio.Event()
        self._met: dict[str, str] = {}  # this round's trouble -> its cure
        self._told: dict[str, str] = {}  # that of the last one

    @property
    def trouble(self) -> str:
        """What Redis refused in the last round, and what to do; empty when nothing was."""
        return "; ".join(f"{trouble}; {cure}" for trouble, cure in [*self._told.items()][:1])

    def relieve(self) -> None:
        """Redis is short of memory: let `run` trim soon, once without a retention.

        Acknowledged entries must not keep new ones out.
        """
        self._short_of_memory.set()

    async def run(self) -> None:
        """Trim every `period` seconds, until cancelled.

        What Redis refuses waits for the next round.
        """
        try:
            while True:
                short = self._short_of_memory.is_set()
                self._short_of_memory.clear()
                await self._attempt(0.0 if short else self._retention)
                heed_cancellation()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.period):
                        await self._short_of_memory.wait()
        finally:
            self.backlog.forget()
            self._looked.clear()
            self._told.clear()

    async def trim(self, retention: float) -> None:
        """Trim all streams once. A stream that Redis refuses to trim stops no other.

        Raises:
            redis.ResponseError: the first refusal; other streams were trimmed. redis.RedisError:
            the rest of the round was left out; begin another.
        """
        refused: list[ResponseError] = []
        found: dict[str, Sequence[Group]] = {}
        now = 0
        subscriptions = await self._members(self._keys.subscriptions)
        for event_type in await self._members(self._keys.types):
            stream = self._keys.stream(event_type)
            queue = domain(event_type)
            readers = {subscriber(each, event_type, queue) for each in subscriptions} - {NOBODY}
            try:
                found[stream], now = await self._trim(stream, retention, sorted(readers))
            except ResponseError as error:
                self._meet(error)
                refused.append(error)
        await self.backlog.look(found, now)
        if self.backlog.denied is not None:
            self._meet(self.backlog.denied)
        names = {group.name for groups in found.values() for group in groups}
        for name in sorted(names - {NOBODY}):
            try:
                for event_type in await self._members(self._keys.replays(name)):
                    await self._trim(self._keys.replay(name, event_type), 0.0, [name])
            except ResponseError as error:
                self._meet(error)
                refused.append(error)
        if refused:
            raise refused[0]

    async def _attempt(self, retention: float) -> None:
        try:
            await self.trim(retention)
        except (RedisError, OSError) as error:
            self._meet(error)
        for trouble in self._met.keys() - self._told.keys():
            told = f"{self._met[trouble]}; trimming goes on by itself"
            log.warning("trim.failed", error=trouble, cure=told)
        if self._told and not self._met:
            log.info("trim.recovered")
        self._told, self._met = self._met, {}

    def _meet(self, error: Exception, script: str = _TRIM.text + _BEHIND.text) -> None:
        """Note an error, once per kind: a missing right is told once, not for each stream."""
        said = str(error) or repr(error)
        if is_denied(error):
            self._met[said.partition(": flybridge:")[0]] = cure(error, script)
        elif "WRONGTYPE" in said:
            self._met[said] = "delete the key"
        else:
            self._met[said] = "see whether Redis is well"

    async def _members(self, key: str) -> list[str]:
        try:
            members: Any = await self._redis.smembers(key)
        except ResponseError as error:
            raise ResponseError(f"{error}: {key}") from error
        return sorted(text(member) for member in members)

    async def _trim(
        self, stream: str, retention: float, readers: Sequence[str]
    ) -> tuple[list[Group], int]:
        """Trim one stream step by step; returns its groups, and Redis' time in Unix ms."""
        before, more = self.trimmed, True
        keys = (stream, self._keys.retries(""), self._keys.ages)
        told = (round(retention * 1000), STEP, *readers)
        while more:
            removed, more, now, aged, limited, *rows = await self._run(_TRIM, keys, told)
            self.trimmed += removed
        if limited:
            self._meet(ResponseError(limited.decode()), _OPTIONAL)
        groups = [_group(stream, *row) for row in rows]
        if any(group.holds_pending(published(aged.decode()) + 1) for group in groups):
            await self._trim_behind(stream, aged, readers)
        if self.trimmed > before:
            log.debug("stream.trimmed", stream=stream, count=self.trimmed - before)
        return groups, now

    async def _trim_behind(self, stream: str, aged: bytes, readers: Sequence[str]) -> None:
        """Remove finished entries behind held ones that are older than this id, from where the last
        look ended.
        """
        start, fruitless = self._looked.pop(stream, b"-"), 0
        while start and fruitless < FRUITLESS:
            told = (aged, start, *readers)
            removed, start = await self._run(_BEHIND, (stream,), told)
            self.trimmed += removed
            fruitless = 0 if removed else fruitless + 1
        if start:
            self._looked[stream] = start

    async def _run(self, script: Script, keys: Sequence[str], told: Sequence[Any]) -> Any:
        try:
            return await run_one(self._redis, Call(script, tuple(keys), tuple(told)))
        except ResponseError as error:
            raise ResponseError(f"{error}: {keys[0]}") from error


def _group(
    stream: str,
    name: bytes,
    pending: int,
    lag: int,
    oldest_pending: bytes,
    due: int,
    oldest_unread: bytes,
) -> Group:
    return Group(
        stream,
        text(name),
        pending,
        lag if lag >= 0 else None,
        oldest_pending.decode(),
        due if due >= 0 else None,
        oldest_unread.decode(),
    )
