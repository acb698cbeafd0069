"""What a worker takes from the streams: new entries, lost replies, dead workers', due retries.

It decides nothing about events; the guard does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import structlog
from redis import Redis

from bridge.streams import Entry, Keys
from workers.claims import Pending
from workers.failures import describe
from workers.lines import First, Lines, Taken
from workers.presence import Presence
from workers.scripts import Call, load, run_all

log = structlog.get_logger("workers.reader")

FULL_READ_EVERY = 4
"""Every so many reads take in the quiet streams too while others are busy."""

PAGE = 100
"""Pending entries that one call looks at, at most."""

START = b"0-0"
"""Where a look through pending entries begins, and what it says at their end."""

SWEEP_AFTER = 3_600.0
"""Seconds, at least, of idleness after which a consumer's worker counts as gone."""

Raw = tuple[bytes, dict[bytes, bytes]]

Caps = Mapping[str, int]
"""Stream -> how many of its entries to take at most, 0 for none; others as there is room."""

NO_CAPS: Caps = {}

NO_LINES: Mapping[bytes, str] = {}


class StreamReader:
    """Reads the streams as one consumer of a group.

    Args:
        redis: a client with RESP2 and a socket timeout above `block`.
        keys: of the app.
        group: consumer group.
        consumer: unique per boot, so that two workers never share pending entries.
        event_lease: seconds an entry must be idle before it is taken over.
        order_of: gives what a stream is ordered by, empty if by nothing; see `workers.ordering`.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        consumer: str,
        event_lease: float,
        order_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._lease_ms = int(event_lease * 1000)
        self._sweep_ms = int(max(10 * event_lease, SWEEP_AFTER) * 1000)
        self._presence = Presence(redis, keys, group, consumer)
        self._grouped: set[str] = set()
        self._unreadable: set[str] = set()
        self._full_at: dict[str, bytes] = {}
        self._busy: list[str] = []
        self._reads = 0
        self._ordered_reads = 0
        self._looks = 0
        self._lines = Lines(redis, keys, group, consumer, order_of)
        self.streams: tuple[str, ...] = ()
        self.unordered: tuple[str, ...] = ()
        """Those of them that `read` reads."""
        self.ordered: tuple[str, ...] = ()
        """Those of them that `read_ordered` reads."""

    def known_types(self) -> set[str]:
        """Names of the streams that the bridge has opened."""
        members: Any = self._redis.smembers(self._keys.types)
        return {member.decode() for member in members}

    def replayed_types(self) -> set[str]:
        """Names of the types for which this group has a replay stream."""
        members: Any = self._redis.smembers(self._keys.replays(self._group))
        return {member.decode() for member in members}

    def subscribe(self, covered: frozenset[str], queues: Collection[str] = ()) -> None:
        """Have trimming wait for this group in every stream that these words cover, from now on.

        Args:
            covered: as they follow the group in `bridge.streams.subscriber`.
            queues: those that this worker reads.
        """
        self._presence.tell(covered, queues)

    def beat(self) -> None:
        """Say that this worker is there, and what it has subscribed to; see `workers.presence`."""
        self._presence.beat()

    def follow(self, streams: Iterable[str]) -> None:
        """Read these streams from now on; a missing group is made, from the first entry on."""
        wanted = tuple(sorted(streams))
        self._make_groups([stream for stream in wanted if stream not in self._grouped])
        self.streams = tuple(stream for stream in wanted if stream in self._grouped)
        self._lines.follow(self.streams)
        self.ordered = tuple(self._lines.orders)
        self.unordered = tuple(each for each in self.streams if each not in self._lines.orders)

    def forget_groups(self) -> None:
        """Make the groups anew: Redis lost them (flushed, or failed over)."""
        self._presence.beat()
        self._grouped.clear()
        self.follow(self.streams)

    def read(self, room: int, block: float, caps: Caps = NO_CAPS) -> list[Pending]:
        """New unordered entries, about `room` at most; waits up to `block` seconds for one."""
        streams = self._next_streams(caps)
        if not streams:
            return []
        focused = len(streams) < sum(caps.get(stream, 1) > 0 for stream in self.unordered)
        most = min(room // len(streams), *(caps.get(stream, room) for stream in streams))
        answer: Any = self._redis.xreadgroup(
            self._group,
            self._consumer,
            dict.fromkeys(streams, ">"),
            count=max(1, most),
            block=None if focused else max(1, int(block * 1000)),
        )
        batches = [(stream.decode(), raw) for stream, raw in answer or []]
        self._busy = [stream for stream, _ in batches]
        return [item for stream, raw in batches for item in self._pending(stream, raw)]

    def read_ordered(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """New entries of the ordered streams that are first in their line; does not wait."""
        found: list[Pending] = []
        self._ordered_reads += 1
        for stream in _rotated(self.ordered, self._ordered_reads):
            left = min(room - len(found), caps.get(stream, room))
            if left > 0:
                found += self._lined_up(stream, self._lines.read(stream, left))
        return found

    def listen(self, block: float, caps: Caps = NO_CAPS) -> bool:
        """Wait up to `block` seconds for something new that is ordered.

        Returns:
            False at once when there is nothing to wait for, or too much is pending already.
        """
        streams = [stream for stream in self.ordered if caps.get(stream, 1) > 0]
        return self._lines.listen(streams, block)

    def own_pending(self) -> list[Pending]:
        """What was delivered to this consumer and not acknowledged: the reply was lost.

        Entries whose retry is more than an event lease away are none of these.
        """
        return [item for stream in self.streams for item in self._recover("own", stream)]

    def take_over(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """Entries whose worker has not renewed them for an event lease.

        If there are more than fit, the next call goes on behind them.
        """
        found: list[Pending] = []
        self._looks += 1
        for stream in _rotated(self.streams, self._looks):
            left = room - len(found)
            found += self._recover("idle", stream, min(left, caps.get(stream, left)))
        return found

    def due(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """Entries whose retry is due."""
        most = [told for stream in self.streams for told in (stream, caps.get(stream, room))]
        call = Call(load("due"), (self._keys.retries(self._group),), (room, self._lease_ms, *most))
        ids: dict[str, list[str]] = {}
        for member in run_all(self._redis, [call])[0]:
            stream, entry_id = member.decode().rsplit("|", 1)
            ids.setdefault(stream, []).append(entry_id)
        ordered = {stream: ids.pop(stream) for stream in self.ordered if stream in ids}
        found = self._claim(ids)
        for stream, wanted in ordered.items():
            found += self._taken(stream, self._lines.take(stream, wanted, room))
        return found

    def renew(self, held: Iterable[Pending]) -> None:
        """Reset the idle time of entries that are still in work here."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, ids in _by_stream(held).items():
                pipeline.xclaim(stream, self._group, self._consumer, 0, ids, idle=0, justid=True)
            pipeline.execute()

    def postpone(self, item: Pending, left: float) -> None:
        """Leave an entry pending, so that it is taken over when `left` seconds have gone."""
        idle = max(0, self._lease_ms - int(left * 1000))
        self._redis.xclaim(
            item.stream, self._group, self._consumer, 0, [item.entry_id], idle=idle, justid=True
        )

    def acknowledge(self, items: Iterable[Pending]) -> None:
        """Acknowledge duplicates: their event is settled already."""
        items, retries = list(items), self._keys.retries(self._group)
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, ids in _by_stream(items).items():
                pipeline.xack(stream, self._group, *ids)
                pipeline.zrem(retries, *(f"{stream}|{entry_id}" for entry_id in ids))
            pipeline.execute()
        self._lines.advance(item.line for item in items)

    def leave(self) -> None:
        """Remove this consumer from every group; what it holds is for others to take over."""
        for stream, gone in self._on_each_stream("leave", self._group, self._consumer):
            for entry_id in gone:
                _missing(stream, entry_id.decode())
        self._presence.withdraw()

    def sweep(self) -> None:
        """Remove the consumers of workers that are gone, once all they held was taken over."""
        told = (self._group, self._consumer, self._sweep_ms)
        for stream, removed in self._on_each_stream("sweep", *told):
            if removed:
                names = " ".join(name.decode(errors="replace") for name in removed)
                log.debug("consumers.swept", stream=stream, consumers=names)

    def _on_each_stream(self, script: str, *args: str | int) -> Iterator[tuple[str, list[bytes]]]:
        calls = [Call(load(script), (stream,), args) for stream in self.streams]
        for stream, answer in zip(self.streams, run_all(self._redis, calls), strict=True):
            if not isinstance(answer, Exception):
                yield stream, answer

    def _next_streams(self, caps: Caps) -> Sequence[str]:
        self._reads += 1
        streams = self.unordered
        busy = [each for each in self._busy if each in streams and caps.get(each, 1) > 0]
        if busy and self._reads % FULL_READ_EVERY:
            return busy
        # Redis serves the streams of one call in the order given.
        rotated = _rotated(streams, self._reads)
        return [stream for stream in rotated if caps.get(stream, 1) > 0]

    def _make_groups(self, streams: Sequence[str]) -> None:
        calls = [Call(load("group"), (stream,), (self._group,)) for stream in streams]
        for stream, answer in zip(streams, run_all(self._redis, calls), strict=True):
            if isinstance(answer, Exception):
                if stream not in self._unreadable:
                    log.error("stream.unreadable", stream=stream, error=str(answer),
                              hint="it is no stream; delete this key by hand")  # fmt: skip
                self._unreadable.add(stream)
            else:
                self._grouped.add(stream)
                self._unreadable.discard(stream)

    def _recover(
        self, whose: Literal["own", "idle"], stream: str, room: int = sys.maxsize
    ) -> list[Pending]:
        """Pending entries of a stream once more, `room` at most."""
        found: list[Pending] = []
        ordered = stream in self._lines.orders
        cursor = self._full_at.pop(stream, START) if whose == "idle" else START
        while (left := room - len(found)) > 0:
            # Most of an ordered stream waits in lines and takes no room.
            told = (self._group, self._consumer, self._lease_ms, PAGE, whose, cursor,
                    PAGE if ordered else left, int(ordered))  # fmt: skip
            call = Call(load("recover"), (stream, self._keys.retries(self._group)), told)
            (answer,) = run_all(self._redis, [call])
            if isinstance(answer, Exception):
                raise answer
            cursor, gone, entries = answer
            for entry_id in gone:
                _missing(stream, entry_id.decode())
            if ordered:
                found += self._taken(stream, self._lines.take(stream, entries, left))
            else:
                found += self._pending(stream, [(id_, _pairs(flat)) for id_, flat in entries])
            if cursor == START:
                return found
        if whose == "idle":
            self._full_at[stream] = cursor
        return found

    def _claim(self, ids: dict[str, list[str]]) -> list[Pending]:
        """Take these entries, whoever holds them, and forget the retries of those that are gone."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, wanted in ids.items():
                pipeline.xclaim(stream, self._group, self._consumer, 0, wanted)  # type: ignore[arg-type]
            answers: list[list[Raw]] = pipeline.execute()
        found: list[Pending] = []
        for (stream, wanted), raw in zip(ids.items(), answers, strict=True):
            found += self._pending(stream, raw)
            given = {entry_id.decode() for entry_id, _ in raw}
            for entry_id in (each for each in wanted if each not in given):
                # Who settles an entry, or acknowledges it, removes its retry; else it was nobody.
                if self._redis.zrem(self._keys.retries(self._group), f"{stream}|{entry_id}"):
                    _missing(stream, entry_id)
        return found

    def _taken(self, stream: str, taken: Taken) -> list[Pending]:
        for entry_id in taken.gone:
            _missing(stream, entry_id.decode())
        return self._lined_up(stream, taken.firsts)

    def _lined_up(self, stream: str, firsts: Iterable[First]) -> list[Pending]:
        lines = {each.entry_id: each.line for each in firsts}
        found = self._pending(stream, [(each.entry_id, each.fields) for each in firsts], lines)
        spoilt = lines.keys() - {item.entry_id.encode() for item in found}
        self._lines.advance(lines[entry_id] for entry_id in spoilt)
        return found

    def _pending(
        self, stream: str, raw: Iterable[Raw], lines: Mapping[bytes, str] = NO_LINES
    ) -> list[Pending]:
        found, spoilt = [], []
        for entry_id, fields in raw:
            try:
                entry = Entry.from_fields(fields)
            except ValueError as error:
                spoilt.append((entry_id.decode(), describe(error)))
            else:
                line = lines.get(entry_id, "")
                found.append(Pending(stream, entry_id.decode(), entry, line))
        if spoilt:
            self._bury(stream, spoilt)
        return found

    def _bury(self, stream: str, spoilt: Sequence[tuple[str, str]]) -> None:
        keys = (stream, self._keys.dead(self._group))
        calls = [Call(load("bury"), keys, (self._group, *each)) for each in spoilt]
        for (entry_id, error), answer in zip(spoilt, run_all(self._redis, calls), strict=True):
            if isinstance(answer, Exception):
                log.error("entry.stuck", stream=stream, entry=entry_id, error=str(answer),
                          hint=f"{keys[1]} is no stream; delete this key by hand")  # fmt: skip
            elif answer:
                log.error("entry.buried", stream=stream, entry=entry_id, error=error,
                          dead_letters=keys[1])  # fmt: skip


def _rotated(streams: Sequence[str], turns: int) -> Sequence[str]:
    """Another one first each turn, so that no busy one takes all the room for ever."""
    turn = turns % max(1, len(streams))
    return [*streams[turn:], *streams[:turn]]


def _missing(stream: str, entry_id: str) -> None:
    log.error("entry.missing", stream=stream, entry=entry_id,
              hint="trimmed, deleted or acknowledged by hand before it was settled; "
              "leave trimming to the bridge")  # fmt: skip


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _by_stream(items: Iterable[Pending]) -> dict[str, list[Any]]:
    streams: dict[str, list[Any]] = {}
    for item in items:
        streams.setdefault(item.stream, []).append(item.entry_id)
    return streams
