"""Trimming: removes from the streams what every group has acknowledged and is past the retention.
It is no cap: what a group has not acknowledged stays, however much that is.

Whole nodes of a stream go at once, up to the oldest entry that a group still needs. Behind such an
entry, which may wait a week for its retry, finished ones are removed one by one.

Each script judges and removes in one step, so workers may read, acknowledge and make groups
meanwhile, and two bridges that trim at once do no harm: no fencing is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from bridge.cancellation import heed_cancellation
from bridge.streams import Keys, subscriber
from handlers.types import domain

PERIOD = 30.0
"""Seconds between two rounds at most."""

STEP = 1_000
"""Entries one call removes at most; Redis serves nobody else for that half millisecond."""

FRUITLESS = 50
"""Pages without a finished entry after which a look behind held ones ends; the next round goes on
there. Each costs Redis about a millisecond."""

UNREAD_AFTER = 300.0
"""Seconds after which somebody should have read an entry."""

_TRIM, _BEHIND = (
    files("bridge").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    for name in ("trim", "trim_behind")
)

NOBODY = ""
"""The name of the group of those who do not read a stream."""

log = structlog.get_logger("bridge.trimming")


@dataclass(frozen=True, slots=True)
class Group:
    """Where a group stands in one stream; with an empty name, that no group reads it."""

    name: str
    pending: int
    lag: int | None
    """Entries it has not read; None when Redis cannot tell, as after an XDEL."""
    oldest_pending: str
    """Id of the oldest entry it was given and has not acknowledged; empty when there is none."""
    due: int | None
    """Unix ms at which the retry of `oldest_pending` is due; None if it waits for none."""
    oldest_unread: str
    """Id of the oldest entry it has not read; empty when there is none."""

    def holds_pending(self, before: float) -> bool:
        """Whether it was given something published before this Unix ms and still needs it."""
        return bool(self.oldest_pending) and _ms(self.oldest_pending) < before

    def held(self, before: float) -> Held | None:
        """What it holds back that was published before this Unix ms.

        The unread counts more: behind it nothing at all is trimmed.
        """
        if self.oldest_unread and _ms(self.oldest_unread) < before:
            return Held("unread", self.oldest_unread)
        if self.holds_pending(before):
            kind: Literal["retry", "unsettled"] = "unsettled" if self.due is None else "retry"
            return Held(kind, self.oldest_pending)
        return None


@dataclass(frozen=True, slots=True)
class Held:
    """Why a group holds entries back, and which is the oldest."""

    kind: Literal["unread", "unsettled", "retry"]
    entry_id: str


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
        self._lagging: set[tuple[str, str, str]] = set()
        self._looked: dict[str, bytes] = {}
        self._short_of_memory = asyncio.Event()
        self._failing = False

    @property
    def lagging(self) -> int:
        """Pairs of stream and group that hold entries past the retention."""
        return sum(name != NOBODY for _, name, _ in self._lagging)

    @property
    def unread(self) -> int:
        """Streams with entries that no group reads."""
        return len(self._lagging) - self.lagging

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
            self._looked.clear()

    async def trim(self, retention: float) -> None:
        """One round over all streams; one that Redis refuses to trim stops no other.

        Raises:
            redis.ResponseError: some streams were refused; this is the first refusal.
            redis.RedisError: the rest of the round was left out; begin another.
        """
        names: set[str] = set()
        refused: list[ResponseError] = []
        subscriptions = await self._members(self._keys.subscriptions)
        for event_type in await self._members(self._keys.types):
            stream = self._keys.stream(event_type)
            queue = domain(event_type)
            readers = {subscriber(each, event_type, queue) for each in subscriptions} - {NOBODY}
            try:
                groups, now = await self._trim(stream, retention, sorted(readers))
            except ResponseError as error:
                refused.append(error)
                continue
            await self._watch(stream, groups, now)
            names.update(group.name for group in groups)
        for name in sorted(names - {NOBODY}):
            for event_type in await self._members(self._keys.replays(name)):
                await self._trim(self._keys.replay(name, event_type), 0.0, [name])
        if refused:
            raise refused[0]

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
        self, stream: str, retention: float, readers: Sequence[str]
    ) -> tuple[list[Group], int]:
        """Trim one stream, step by step; its groups, and Redis' time in Unix ms."""
        before, more = self.trimmed, True
        keys = (stream, self._keys.retries(""), self._keys.ages)
        told = (round(retention * 1000), STEP, *readers)
        while more:
            removed, more, now, aged, *rows = await self._run(_TRIM, keys, told)
            self.trimmed += removed
        groups = [_group(*row) for row in rows]
        if any(group.holds_pending(_ms(aged.decode()) + 1) for group in groups):
            await self._trim_behind(stream, aged, readers)
        if self.trimmed > before:
            log.debug("stream.trimmed", stream=stream, count=self.trimmed - before)
        return groups, now

    async def _trim_behind(self, stream: str, aged: bytes, readers: Sequence[str]) -> None:
        """Remove finished entries behind held ones that are older than this id, from where the
        last look has ended."""
        start, fruitless = self._looked.pop(stream, b"-"), 0
        while start and fruitless < FRUITLESS:
            told = (aged, start, *readers)
            removed, start = await self._run(_BEHIND, (stream,), told)
            self.trimmed += removed
            fruitless = 0 if removed else fruitless + 1
        if start:
            self._looked[stream] = start

    async def _run(self, script: str, keys: Sequence[str], told: Sequence[Any]) -> Any:
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._redis.evalsha(sha, len(keys), *keys, *told)
        except NoScriptError:
            return await self._redis.eval(script, len(keys), *keys, *told)

    async def _watch(self, stream: str, groups: Sequence[Group], now: int) -> None:
        """Tell of groups that begin or cease to hold entries past the retention."""
        late = {}
        for group in groups:
            patience = self._retention if group.name else min(self._retention, UNREAD_AFTER)
            if held := group.held(now - patience * 1000):
                late[group.name, held.kind] = (group, held)
        known = {(name, kind) for where, name, kind in self._lagging if where == stream}
        for place in late.keys() - known:
            await self._warn(stream, *late[place], now)
        for name in {name for name, _ in known} - {name for name, _ in late}:
            log.info("group.caught_up" if name else "stream.read", stream=stream, group=name)
        self._lagging -= {(stream, *place) for place in known}
        self._lagging |= {(stream, *place) for place in late}

    async def _warn(self, stream: str, group: Group, held: Held, now: int) -> None:
        rows: Any = await self._redis.xrange(stream, held.entry_id, held.entry_id)
        event_id = _text(rows[0][1].get(b"event_id", b"")) if rows else ""
        told = {
            "stream": stream,
            "oldest": held.entry_id,
            "event_id": event_id,
            "age": (now - _ms(held.entry_id)) // 1000,
        }
        if not group.name:
            log.warning("stream.unread", **told, count=group.lag, cure=_nobody(stream))
            return
        due = {} if group.due is None else {"due_in": max(0, group.due - now) // 1000}
        log.warning(
            "group.lagging",
            **told,
            group=group.name,
            holds=held.kind,
            **(due if held.kind == "retry" else {}),
            pending=group.pending,
            lag="unknown" if group.lag is None else group.lag,
            cure=_CURES[held.kind].format(group=group.name),
        )


_CURES = {
    "unread": "nothing newer is trimmed: start more workers of this group; if nobody needs it, "
    "flybridge groups forget {group}",
    "unsettled": "it was given to a worker that has not settled it; see whether the workers of "
    "this group are well and what they wait for (what is done behind it is trimmed all the same); "
    "if nobody needs the group, flybridge groups forget {group}",
    "retry": "none is needed: the event waits for the retry that its handler asked for, and what "
    "is done behind it is trimmed all the same",
}
"""What holds a stream -> what to do."""


def _nobody(stream: str) -> str:
    return (
        "no group reads these events, so they are kept: start a worker whose queues have this "
        "type; if nobody needs it, take it out of the app's events in the Feishu console, and "
        f"then: redis-cli XTRIM {stream} MAXLEN 0"
    )


def _group(
    name: bytes, pending: int, lag: int, oldest_pending: bytes, due: int, oldest_unread: bytes
) -> Group:
    return Group(
        _text(name),
        pending,
        lag if lag >= 0 else None,
        oldest_pending.decode(),
        due if due >= 0 else None,
        oldest_unread.decode(),
    )


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _text(name: bytes) -> str:
    """Names that someone made by hand may be anything."""
    return name.decode(errors="replace")
