"""Reports events that wait too long: older than the retention, read by no group, without a worker.

It is told once per trimming round where each group stands in each stream, and logs what changed
since the last round: one line per group, however many streams are concerned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

NOBODY = ""
"""The name of the group for streams that no group reads."""

UNREAD_AFTER = 300.0
"""Seconds after which some group should have read an entry."""

NO_WORKER_AFTER = 60.0
"""Seconds after which a group should have read an entry; then its workers are counted. A killed
worker counts as running for as long."""

SHOWN = 10
"""Names in one log line at most."""

log = get_logger(__name__)

Kind = Literal["unread", "unsettled", "retry"]
"""Unread entries, delivered entries without a result, entries that wait for a retry."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group's position in one stream. The name is empty if no group reads the stream."""

    stream: str
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
        """Whether an entry published before this Unix ms was delivered and is not acknowledged."""
        return bool(self.oldest_pending) and published(self.oldest_pending) < before

    def holds_unread(self, before: float) -> bool:
        """Whether an entry published before this Unix ms has not been read."""
        return bool(self.oldest_unread) and published(self.oldest_unread) < before

    def held(self, before: float) -> Held | None:
        """The oldest entry published before this Unix ms that the group holds back.

        Unread entries come first: nothing behind them is trimmed.
        """
        if self.holds_unread(before):
            return Held(self, "unread", self.oldest_unread)
        if self.holds_pending(before):
            return Held(self, "unsettled" if self.due is None else "retry", self.oldest_pending)
        return None


@dataclass(frozen=True, slots=True)
class Held:
    """The oldest entry that a group holds back in a stream, and why."""

    group: Group
    kind: Kind
    entry_id: str

    @property
    def place(self) -> tuple[str, str, Kind]:
        """Stream, group and kind: each is logged once."""
        return self.group.stream, self.group.name, self.kind


class Backlog:
    """Finds and logs what waits too long in the streams of one app.

    Args:
        retention: seconds.
    """

    def __init__(self, redis: Redis, keys: Keys, retention: float) -> None:
        self._redis = redis
        self._keys = keys
        self._retention = retention
        self.denied: NoPermissionError | None = None
        """Why the last look could not tell whether groups have workers; None: it could."""
        self._late: set[tuple[str, str, Kind]] = set()
        self._alone: set[str] = set()

    @property
    def lagging(self) -> int:
        """Pairs of stream and group that hold back entries older than the retention."""
        return sum(name != NOBODY for _, name, _ in self._late)

    @property
    def unread(self) -> int:
        """Streams with entries that no group reads."""
        return len(self._late) - self.lagging

    @property
    def without_workers(self) -> int:
        """Groups with unread events and no worker at work."""
        return len(self._alone)

    def forget(self) -> None:
        """Forget everything, when nobody looks any more."""
        self._late.clear()
        self._alone.clear()

    async def look(self, round_: Mapping[str, Sequence[Group]], now: int) -> None:
        """Log which groups begin or cease to hold entries back, or to have workers.

        Args:
            round_: stream -> its groups; a stream that is missing has not changed.
            now: Unix ms by Redis' clock.

        Raises:
            redis.RedisError: something was not logged; the next call does it.
        """
        groups = [group for each in round_.values() for group in each]
        held = [one for group in groups if (one := group.held(now - self._patience(group) * 1000))]
        known = {place for place in self._late if place[0] in round_}
        await self._tell_late([one for one in held if one.place not in known], now)
        late = {one.place for one in held}
        _tell_of_those_that_caught_up(known, late)
        self._late = (self._late - known) | late
        await self._look_for_workers(groups, now)

    def _patience(self, group: Group) -> float:
        return self._retention if group.name else min(self._retention, UNREAD_AFTER)

    async def _tell_late(self, found: Iterable[Held], now: int) -> None:
        places: dict[tuple[str, Kind], list[Held]] = {}
        for one in found:
            places.setdefault((one.group.name, one.kind), []).append(one)
        for several in places.values():
            await self._warn(sorted(several, key=lambda one: published(one.entry_id)), now)

    async def _warn(self, several: Sequence[Held], now: int) -> None:
        """Log one line for a group, about its oldest entry."""
        oldest = several[0]
        group, stream = oldest.group, oldest.group.stream
        rows: Any = await self._redis.xrange(stream, oldest.entry_id, oldest.entry_id)
        told: dict[str, Any] = {
            "stream": stream,
            "streams": len(several),
            "oldest": oldest.entry_id,
            "event_id": text(rows[0][1].get(b"event_id", b"")) if rows else "",
            "age": (now - published(oldest.entry_id)) // 1000,
        }
        if group.name == NOBODY:
            types = " ".join(each.group.stream.rpartition(":")[2] for each in several[:SHOWN])
            log.warning("stream.unread", **told, types=types, count=group.lag, cure=_cure(stream))
            return
        if oldest.kind == "retry":
            told["due_in"] = max(0, (group.due or 0) - now) // 1000
        log.warning(
            "group.lagging",
            **told,
            group=group.name,
            holds=oldest.kind,
            pending=group.pending,
            lag="unknown" if group.lag is None else group.lag,
            cure=_CURES[oldest.kind].format(group=group.name),
        )

    async def _look_for_workers(self, groups: Iterable[Group], now: int) -> None:
        before = now - NO_WORKER_AFTER * 1000
        self.denied = None
        waiting = [group for group in groups if group.name and group.holds_unread(before)]
        alone: dict[str, list[Group]] = {}
        for group in waiting:
            alone.setdefault(group.name, []).append(group)
        for name in list(alone):
            if await self._has_workers(name):
                del alone[name]
        for name in sorted(alone.keys() - self._alone):
            log.warning(
                "workers.missing",
                group=name,
                streams=len(alone[name]),
                oldest_age=max(now - published(each.oldest_unread) for each in alone[name]) // 1000,
                cure="no worker of this group is at work, and its events wait: start some; if "
                f"nobody needs the group, flybridge groups forget {name}",
            )
        for name in sorted(self._alone - alone.keys()):
            log.info("workers.found", group=name)
        self._alone = set(alone)

    async def _has_workers(self, group: str) -> bool:
        try:
            return bool(await self._redis.exists(self._keys.workers(group)))
        except NoPermissionError as error:  # to trim, a user needs no EXISTS
            self.denied = error
            return True


def _tell_of_those_that_caught_up(
    known: Iterable[tuple[str, str, Kind]], late: Iterable[tuple[str, str, Kind]]
) -> None:
    still = {(stream, name) for stream, name, _ in late}
    streams: dict[str, set[str]] = {}
    for stream, name, _ in known:
        if (stream, name) not in still:
            streams.setdefault(name, set()).add(stream)
    for name, left in streams.items():
        stream = min(left)
        if name == NOBODY:
            log.info("stream.read", stream=stream, streams=len(left))
        else:
            log.info("group.caught_up", stream=stream, streams=len(left), group=name)


_CURES: Mapping[Kind, str] = {
    "unread": "nothing newer is trimmed: start more workers of this group; if nobody needs it, "
    "flybridge groups forget {group}",
    "unsettled": "it was given to a worker that has not settled it; see whether the workers of "
    "this group are well and what they wait for (what is done behind it is trimmed all the same); "
    "if nobody needs the group, flybridge groups forget {group}",
    "retry": "none is needed: the event waits for the retry that its handler asked for, and what "
    "is done behind it is trimmed all the same",
}
"""What to do, by what a stream is held for."""


def _cure(stream: str) -> str:
    return (
        "no group reads these events, so they are kept: start a worker whose queues have this "
        "type; if nobody needs it, take it out of the app's events in the Feishu console, and "
        f"then: redis-cli XTRIM {stream} MAXLEN 0"
    )


def published(entry_id: str) -> int:
    """Unix ms of an entry, by Redis' clock."""
    return int(entry_id.partition("-")[0])


def text(name: bytes) -> str:
    """A name as text; names made by hand may hold any bytes."""
    return name.decode(errors="replace")
