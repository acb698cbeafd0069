"""Trimming: removes from the streams what every group has acknowledged and is past the retention.
It is no cap: what a group has not acknowledged stays, however much that is.

The script judges and removes in one step, so workers may read, acknowledge and make groups
meanwhile, and two bridges that trim at once do no harm: no fencing is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from bridge.cancellation import heed_cancellation
from bridge.streams import Keys, subscriber
from handlers.types import domain

PERIOD = 30.0
"""Seconds between two rounds at most."""

STEP = 1_000
"""Entries one call removes at most; Redis serves nobody else for that half millisecond."""

_SCRIPT = files("bridge").joinpath("lua", "trim.lua").read_text(encoding="utf-8")
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

log = structlog.get_logger("bridge.trimming")


@dataclass(frozen=True, slots=True)
class Group:
    """Where a group stands in one stream."""

    name: str
    pending: int
    lag: int | None
    """Entries it has not read; None when Redis cannot tell, as after an XDEL."""
    held: str
    """Id of its oldest entry that is pending or unread; empty when there is none."""

    def held_for(self, now: float) -> float:
        """Seconds since `held` was published, at `now` in Unix seconds; 0 without one."""
        return now - int(self.held.partition("-")[0]) / 1000 if self.held else 0.0


class Trimmer:
    """Trims the streams of one app.

    A group that has subscribed to a type holds its stream even before it has joined it.

    Args:
        redis: a client; the script may be repeated.
        retention: seconds for which an entry stays although every group has acknowledged it.
            Replay streams have none: they are one group's own.
    """

    def __init__(self, redis: Redis, keys: Keys, retention: float) -> None:
        self.trimmed = 0
        """Entries removed so far."""
        self.period = min(PERIOD, retention / 2)
        """Seconds between two rounds."""
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self._lagging: set[tuple[str, str]] = set()
        self._short_of_memory = asyncio.Event()
        self._failing = False

    @property
    def lagging(self) -> int:
        """Pairs of stream and group that hold entries past the retention."""
        return len(self._lagging)

    def relieve(self) -> None:
        """Redis is short of memory: have `run` trim soon, this once without a retention.

        Entries that are kept though done must not keep new ones out.
        """
        self._short_of_memory.set()

    async def run(self) -> None:
        """Trim every `period` seconds, until cancelled. What Redis refuses waits for the next
        round."""
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
            self._lagging.clear()

    async def trim(self, retention: float) -> None:
        """One round over all streams.

        Raises:
            redis.RedisError: the rest of the round was left out; begin another.
        """
        names: set[str] = set()
        subscriptions = await self._members(self._keys.subscriptions)
        for event_type in await self._members(self._keys.types):
            stream = self._keys.stream(event_type)
            queue = domain(event_type)
            readers = {subscriber(each, event_type, queue) for each in subscriptions} - {""}
            groups, now = await self._trim(stream, retention, sorted(readers))
            self._watch(stream, groups, now)
            names.update(group.name for group in groups)
        for name in sorted(names):
            for event_type in await self._members(self._keys.replays(name)):
                await self._trim(self._keys.replay(name, event_type), 0.0)

    async def _attempt(self, retention: float) -> None:
        try:
            await self.trim(retention)
        except (RedisError, OSError) as error:
            if not self._failing:
                cure = "see whether Redis is well; trimming goes on by itself"
                log.warning("trim.failed", error=str(error) or repr(error), cure=cure)
            self._failing = True
        else:
            if self._failing:
                log.info("trim.recovered")
            self._failing = False

    async def _members(self, key: str) -> list[str]:
        members: Any = await self._redis.smembers(key)
        return sorted(_text(member) for member in members)

    async def _trim(
        self, stream: str, retention: float, readers: Sequence[str] = ()
    ) -> tuple[list[Group], float]:
        """Trim one stream, step by step; its groups, and Redis' time in Unix seconds."""
        before, more = self.trimmed, True
        while more:
            removed, more, now, *rows = await self._step(stream, retention, readers)
            self.trimmed += removed
        if self.trimmed > before:
            log.debug("stream.trimmed", stream=stream, count=self.trimmed - before)
        return [_group(*row) for row in rows], now / 1000

    async def _step(self, stream: str, retention: float, readers: Sequence[str]) -> Any:
        arguments: tuple[int | str, ...] = (round(retention * 1000), STEP, *readers)
        try:
            return await self._redis.evalsha(_SHA, 1, stream, *arguments)
        except NoScriptError:
            return await self._redis.eval(_SCRIPT, 1, stream, *arguments)

    def _watch(self, stream: str, groups: Sequence[Group], now: float) -> None:
        """Tell of groups that begin or cease to hold entries past the retention."""
        late = {group.name for group in groups if group.held_for(now) > self._retention}
        known = {name for held, name in self._lagging if held == stream}
        for group in groups:
            if group.name in late - known:
                _warn(stream, group, now)
            elif group.name in known - late:
                log.info("group.caught_up", stream=stream, group=group.name)
        self._lagging -= {(stream, name) for name in known}
        self._lagging |= {(stream, name) for name in late}


def _group(name: bytes, pending: int, lag: int, held: bytes) -> Group:
    return Group(_text(name), pending, lag if lag >= 0 else None, held.decode())


def _text(name: bytes) -> str:
    """Names that someone made by hand may be anything."""
    return name.decode(errors="replace")


def _warn(stream: str, group: Group, now: float) -> None:
    log.warning(
        "group.lagging",
        stream=stream,
        group=group.name,
        pending=group.pending,
        lag="unknown" if group.lag is None else group.lag,
        oldest=group.held,
        age=round(group.held_for(now)),
        cure="nothing newer is trimmed: start more workers of this group; if nobody needs it, "
        f"flybridge groups forget {group.name}",
    )
