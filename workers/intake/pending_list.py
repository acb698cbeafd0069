"""The pending list: finds what was lost, takes over from dead workers, fetches due retries.

Entries are judged by how long they have been idle: a worker that renews an entry keeps it; one that
postpones it, or dies, loses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from flybridge.bridge.store.scripts import Call, is_spoilt, load, pairs, run_all
from flybridge.handlers.loggers import get_logger
from flybridge.workers.claim.claims import Pending
from flybridge.workers.intake.consumer import (
    NO_CAPS,
    Caps,
    Consumer,
    Followed,
    Raw,
    largest,
    rotated,
    tell_missing,
)
from flybridge.workers.intake.ordered_reader import Taken

log = get_logger(__name__)

PAGE = 100
"""Pending entries that one call looks at, at most."""

PAGES = 10
"""Pages in one look at a stream, for the other streams wait meanwhile."""

START = b"0-0"
"""Where a look through pending entries begins, and what it says at their end."""


class PendingList:
    """What was delivered from the streams of a consumer, and not acknowledged.

    Args:
        event_lease: seconds an entry must be idle before it is taken over.
    """

    def __init__(self, consumer: Consumer, event_lease: float) -> None:
        self._consumer = consumer
        self._redis = consumer.redis
        self._group = consumer.group
        self._lines = consumer.lines
        self._lease_ms = int(event_lease * 1000)
        self._sizes = consumer.sizes
        self._stopped_at: dict[tuple[str, str], bytes] = {}
        self.unfinished = False
        """The last `take_over` had room for more, but ended after `PAGES` of a stream."""
        self._looks = 0
        self._turns = 0

    def doubt(self) -> None:
        """Have `own` look through all that was delivered to this consumer, for a reply was lost."""
        self._stopped_at |= {("own", stream): START for stream in self._consumer.streams}

    def own(self, room: int) -> list[Pending]:
        """What was delivered to this consumer and not acknowledged, since `doubt`.

        Entries whose retry is more than an event lease away are none of these. If there are more
        than fit, the next call goes on behind them.
        """
        found: list[Pending] = []
        followed = self._consumer.followed
        for whose, stream in list(self._stopped_at):
            if whose == "own" and len(found) < room:
                found += self._recover("own", stream, room - len(found), followed)
        return found

    def take_over(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """Entries whose worker has not renewed them for an event lease.

        If there are more than fit, the next call goes on behind them.
        """
        found: list[Pending] = []
        self.unfinished = False
        self._looks += 1
        followed = self._consumer.followed
        for stream in rotated(followed.streams, self._looks):
            left = room - len(found)
            found += self._recover("idle", stream, min(left, caps.get(stream, left)), followed)
        return found

    def due(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """Entries whose retry is due."""
        followed = self._consumer.followed
        ids = self._due_ids(followed.streams, room, caps)
        ordered = {stream: ids.pop(stream) for stream in followed.orders if stream in ids}
        found = self._claim(ids)
        for stream, wanted in ordered.items():
            found += self._taken(stream, self._lines.take(stream, wanted, room))
        return found

    def renew(self, held: Iterable[Pending]) -> None:
        """Reset the idle time of entries that are still in work here."""
        group, name = self._group, self._consumer.name
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, ids in _by_stream(held).items():
                pipeline.xclaim(stream, group, name, 0, ids, idle=0, justid=True)
            _execute(pipeline)

    def postpone(self, item: Pending, left: float) -> None:
        """Leave an entry pending so that it is taken over in `left` seconds."""
        group, name = self._group, self._consumer.name
        idle = max(0, self._lease_ms - int(left * 1000))
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xclaim(item.stream, group, name, 0, [item.entry_id], idle=idle, justid=True)
            _execute(pipeline)

    def acknowledge(self, items: Iterable[Pending]) -> None:
        """Acknowledge duplicates: their event is settled already."""
        items = list(items)
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, ids in _by_stream(items).items():
                pipeline.xack(stream, self._group, *ids)
                pipeline.zrem(self._retries_of(stream), *ids)
            _execute(pipeline)
        self._lines.advance(item.line for item in items)

    def _due_ids(self, streams: Sequence[str], room: int, caps: Caps) -> dict[str, list[str]]:
        """Stream -> ids."""
        self._turns += 1
        streams = rotated(streams, self._turns)
        if not streams:
            return {}
        retries = tuple(map(self._retries_of, streams))
        most = [min(caps.get(stream, room), self._sizes.most([stream])) for stream in streams]
        (answers,) = run_all(
            self._redis, [Call(load("due"), retries, (room, self._lease_ms, *most))]
        )
        ids: dict[str, list[str]] = {}
        for stream, key, answer in zip(streams, retries, answers, strict=True):
            if isinstance(answer, Exception):
                # These retries come later, when their entries are idle for an event lease.
                self._consumer.spoilt.tell({key: "zset"}, answer)
                continue
            self._consumer.spoilt.well(key)
            taken, odd = answer
            if odd:
                log.error("retry.malformed", key=key, members=len(odd), first=repr(odd[0][:64]),
                          hint="somebody wrote them by hand; they were removed")  # fmt: skip
            if taken:
                ids[stream] = [entry_id.decode() for entry_id in taken]
        return ids

    def _retries_of(self, stream: str) -> str:
        return self._consumer.keys.retries_of(self._group, stream)

    def _recover(
        self, whose: Literal["own", "idle"], stream: str, room: int, followed: Followed
    ) -> list[Pending]:
        """Pending entries of a stream once more, `room` at most, from where the last look ended."""
        found: list[Pending] = []
        cursor = self._stopped_at.pop((whose, stream), START)
        if stream not in followed.streams:
            # No longer followed: whether it is ordered is unknown here; others will take it over.
            return found
        ordered = stream in followed.orders
        for _ in range(PAGES):
            left = room - len(found)
            if left <= 0:
                break
            # Most entries of an ordered stream wait in lines, and take no room.
            most = PAGE if ordered else min(left, self._sizes.most([stream]))
            told = (self._group, self._consumer.name, self._lease_ms, PAGE, whose, cursor,
                    most, int(ordered))  # fmt: skip
            call = Call(load("recover"), (stream, self._retries_of(stream)), told)
            (answer,) = run_all(self._redis, [call])
            if isinstance(answer, Exception):
                # The key is no stream any more; the reader logs that, and leaves it out.
                raise answer
            cursor, gone, entries = answer
            tell_missing(stream, gone)
            if ordered:
                found += self._taken(stream, self._lines.take(stream, entries, left))
            else:
                raw = [(entry_id, pairs(flat)) for entry_id, flat in entries]
                self._sizes.note(stream, largest(raw))
                found += self._consumer.pending(stream, raw)
            if cursor == START:
                return found
        else:
            self.unfinished = self.unfinished or whose == "idle"
        if cursor != START:
            self._stopped_at[whose, stream] = cursor
        return found

    def _taken(self, stream: str, taken: Taken) -> list[Pending]:
        tell_missing(stream, taken.gone)
        return self._consumer.lined_up(stream, taken.firsts)

    def _claim(self, ids: dict[str, list[str]]) -> list[Pending]:
        """Take these entries, whoever holds them, and forget the retries of those that are gone."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, wanted in ids.items():
                pipeline.xclaim(stream, self._group, self._consumer.name, 0, wanted)  # type: ignore[arg-type]
            answers: list[list[Raw]] = [
                [] if isinstance(answer, Exception) else answer for answer in _execute(pipeline)
            ]
        found: list[Pending] = []
        for (stream, wanted), raw in zip(ids.items(), answers, strict=True):
            self._sizes.note(stream, largest(raw))
            found += self._consumer.pending(stream, raw)
            given = {entry_id.decode() for entry_id, _ in raw}
            self._forget(stream, [each for each in wanted if each not in given])
        return found

    def _forget(self, stream: str, gone: Sequence[str]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for entry_id in gone:
                pipeline.zrem(self._retries_of(stream), entry_id)
            removed = _execute(pipeline)
        # Settling or acknowledging an entry removes its retry; what is left was lost otherwise.
        missing = [each.encode() for each, n in zip(gone, removed, strict=True) if n == 1]
        tell_missing(stream, missing)


def _execute(pipeline: Any) -> list[Any]:
    """Send a pipeline; a command on a key of a wrong type fails alone, and the reader logs it."""
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not is_spoilt(answer):
            raise answer
    return answers


def _by_stream(items: Iterable[Pending]) -> dict[str, list[Any]]:
    streams: dict[str, list[Any]] = {}
    for item in items:
        streams.setdefault(item.stream, []).append(item.entry_id)
    return streams
