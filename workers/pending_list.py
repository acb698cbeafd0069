"""The pending list of a group: found again, taken over from the dead, brought when a retry is due.

Idleness is what an entry is judged by: who renews it keeps it, who postpones it or dies loses it.
Nothing new is read here, and nothing decided about events; the guard does that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import structlog

from workers.claims import Pending
from workers.consumer import NO_CAPS, Caps, Consumer, Raw, rotated, tell_missing
from workers.lines import Taken
from workers.scripts import Call, load, pairs, run_all
from workers.spoilt import is_spoilt

log = structlog.get_logger("workers.reader")

PAGE = 100
"""Pending entries that one call looks at, at most."""

START = b"0-0"
"""Where a look through pending entries begins, and what it says at their end."""


class PendingList:
    """What was delivered from the streams of a consumer, and not acknowledged.

    Args:
        consumer: takes it, and says which streams.
        event_lease: seconds an entry must be idle before it is taken over.
    """

    def __init__(self, consumer: Consumer, event_lease: float) -> None:
        self._consumer = consumer
        self._redis = consumer.redis
        self._group = consumer.group
        self._lines = consumer.lines
        self._lease_ms = int(event_lease * 1000)
        self._full_at: dict[str, bytes] = {}
        self._looks = 0
        self._turns = 0

    def own(self) -> list[Pending]:
        """What was delivered to this consumer and not acknowledged: the reply was lost.

        Entries whose retry is more than an event lease away are none of these.
        """
        followed = self._consumer.followed
        return [
            item
            for stream in followed.streams
            for item in self._recover("own", stream, ordered=stream in followed.orders)
        ]

    def take_over(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """Entries whose worker has not renewed them for an event lease.

        If there are more than fit, the next call goes on behind them.
        """
        found: list[Pending] = []
        self._looks += 1
        followed = self._consumer.followed
        for stream in rotated(followed.streams, self._looks):
            left = room - len(found)
            most, ordered = min(left, caps.get(stream, left)), stream in followed.orders
            found += self._recover("idle", stream, most, ordered=ordered)
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
        """Leave an entry pending, so that it is taken over when `left` seconds have gone."""
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
        most = [caps.get(stream, room) for stream in streams]
        (answers,) = run_all(
            self._redis, [Call(load("due"), retries, (room, self._lease_ms, *most))]
        )
        ids: dict[str, list[str]] = {}
        for stream, key, answer in zip(streams, retries, answers, strict=True):
            if isinstance(answer, Exception):
                # They come all the same when they are idle for an event lease.
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
        self,
        whose: Literal["own", "idle"],
        stream: str,
        room: int = sys.maxsize,
        *,
        ordered: bool,
    ) -> list[Pending]:
        """Pending entries of a stream once more, `room` at most."""
        found: list[Pending] = []
        cursor = self._full_at.pop(stream, START) if whose == "idle" else START
        while (left := room - len(found)) > 0:
            # Most of an ordered stream waits in lines and takes no room.
            told = (self._group, self._consumer.name, self._lease_ms, PAGE, whose, cursor,
                    PAGE if ordered else left, int(ordered))  # fmt: skip
            call = Call(load("recover"), (stream, self._retries_of(stream)), told)
            (answer,) = run_all(self._redis, [call])
            if isinstance(answer, Exception):
                # The stream is none any more; the reader tells of it, and leaves it out.
                raise answer
            cursor, gone, entries = answer
            for entry_id in gone:
                tell_missing(stream, entry_id.decode())
            if ordered:
                found += self._taken(stream, self._lines.take(stream, entries, left))
            else:
                raw = [(entry_id, pairs(flat)) for entry_id, flat in entries]
                found += self._consumer.pending(stream, raw)
            if cursor == START:
                return found
        if whose == "idle":
            self._full_at[stream] = cursor
        return found

    def _taken(self, stream: str, taken: Taken) -> list[Pending]:
        for entry_id in taken.gone:
            tell_missing(stream, entry_id.decode())
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
            found += self._consumer.pending(stream, raw)
            given = {entry_id.decode() for entry_id, _ in raw}
            self._forget(stream, [each for each in wanted if each not in given])
        return found

    def _forget(self, stream: str, gone: Iterable[str]) -> None:
        for entry_id in gone:
            # Who settles an entry, or acknowledges it, removes its retry; else it was nobody.
            if self._redis.zrem(self._retries_of(stream), entry_id):
                tell_missing(stream, entry_id)


def _execute(pipeline: Any) -> list[Any]:
    """Send a pipeline; what meets a key of a wrong type fails alone, and the reader tells of it."""
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
