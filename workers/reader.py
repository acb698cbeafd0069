"""What a worker takes from the streams: new entries, lost replies, dead workers', due retries.

It decides nothing about events; the guard does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import ResponseError

from bridge.streams import Entry, Keys
from workers.guard import Pending
from workers.scripts import Call, load, run_all

log = structlog.get_logger("workers.reader")

FULL_READ_EVERY = 4
"""Every so many reads take in the quiet streams too while others are busy."""

Raw = tuple[bytes, dict[bytes, bytes] | None]


class StreamReader:
    """Reads the streams as one consumer of a group.

    Args:
        redis: a client with RESP2 and a socket timeout above `block`.
        keys: of the app.
        group: consumer group.
        consumer: unique per boot, so that two workers never share pending entries.
        event_lease: seconds an entry must be idle before it is taken over.
    """

    def __init__(
        self, redis: Redis, keys: Keys, group: str, consumer: str, event_lease: float
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._lease_ms = int(event_lease * 1000)
        self._grouped: set[str] = set()
        self._busy: list[str] = []
        self._reads = 0
        self.streams: tuple[str, ...] = ()

    def known_types(self) -> set[str]:
        """Names of the streams that the bridge has opened."""
        members: Any = self._redis.smembers(self._keys.types)
        return {member.decode() for member in members}

    def replayed_types(self) -> set[str]:
        """Names of the types for which this group has a replay stream."""
        members: Any = self._redis.smembers(self._keys.replays(self._group))
        return {member.decode() for member in members}

    def follow(self, streams: Iterable[str]) -> None:
        """Read these streams from now on; a missing group is made, from the first entry on."""
        wanted = tuple(sorted(streams))
        for stream in wanted:
            if stream not in self._grouped:
                self._make_group(stream)
        self.streams = wanted

    def forget_groups(self) -> None:
        """Make the groups anew: Redis lost them (flushed, or failed over)."""
        self._grouped.clear()
        self.follow(self.streams)

    def read(self, room: int, block: float) -> list[Pending]:
        """New entries, about `room` at most; waits up to `block` seconds for the first."""
        streams = self._next_streams()
        if not streams:
            return []
        focused = len(streams) < len(self.streams)
        answer: Any = self._redis.xreadgroup(
            self._group,
            self._consumer,
            dict.fromkeys(streams, ">"),
            count=max(1, room // len(streams)),
            block=None if focused else max(1, int(block * 1000)),
        )
        batches = [(stream.decode(), raw) for stream, raw in answer or []]
        self._busy = [stream for stream, _ in batches]
        return [item for stream, raw in batches for item in self._pending(stream, raw)]

    def own_pending(self) -> list[Pending]:
        """What was delivered to this consumer and not acknowledged: the reply was lost."""
        found: list[Pending] = []
        for stream in self.streams:
            after = "0"
            while True:
                answer: Any = self._redis.xreadgroup(
                    self._group, self._consumer, {stream: after}, count=500
                )
                raw = answer[0][1] if answer else []
                if not raw:
                    break
                after = raw[-1][0].decode()
                found += self._pending(stream, raw)
        return found

    def take_over(self, room: int) -> list[Pending]:
        """Entries whose worker has not renewed them for an event lease."""
        found: list[Pending] = []
        for stream in self.streams:
            cursor = b"0-0"
            while len(found) < room:
                answer: Any = self._redis.xautoclaim(
                    stream, self._group, self._consumer, self._lease_ms, cursor, count=100
                )
                cursor, raw = answer[0], answer[1]
                found += self._pending(stream, raw)
                if cursor == b"0-0":
                    break
        return found

    def due(self, room: int) -> list[Pending]:
        """Entries whose retry is due."""
        call = Call(
            load("due"),
            (self._keys.retries(self._group),),
            (room, self._lease_ms, *self.streams),
        )
        found: list[Pending] = []
        for member in run_all(self._redis, [call])[0]:
            stream, entry_id = member.decode().rsplit("|", 1)
            raw: Any = self._redis.xclaim(stream, self._group, self._consumer, 0, [entry_id])
            found += self._pending(stream, raw)
            if not raw:
                self._redis.zrem(self._keys.retries(self._group), member)
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
        with self._redis.pipeline(transaction=False) as pipeline:
            for stream, ids in _by_stream(items).items():
                pipeline.xack(stream, self._group, *ids)
            pipeline.execute()

    def leave(self) -> None:
        """Remove this consumer from every group; what it holds is for others to take over."""
        script = load("leave")
        run_all(
            self._redis,
            [Call(script, (stream,), (self._group, self._consumer)) for stream in self.streams],
        )

    def _next_streams(self) -> Sequence[str]:
        self._reads += 1
        if self._busy and self._reads % FULL_READ_EVERY:
            return self._busy
        # Rotated, for Redis serves the streams of one call in the order given.
        turn = self._reads % max(1, len(self.streams))
        return self.streams[turn:] + self.streams[:turn]

    def _make_group(self, stream: str) -> None:
        try:
            self._redis.xgroup_create(stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._grouped.add(stream)

    def _pending(self, stream: str, raw: Iterable[Raw]) -> list[Pending]:
        found = []
        for entry_id, fields in raw:
            if not fields:
                self._redis.xack(stream, self._group, entry_id)
                log.error("entry.missing", stream=stream, entry=entry_id.decode(),
                          hint="it was trimmed or deleted before it was acknowledged")  # fmt: skip
                continue
            try:
                found.append(Pending(stream, entry_id.decode(), Entry.from_fields(fields)))
            except ValueError as error:
                self._bury(stream, entry_id, fields, str(error))
        return found

    def _bury(self, stream: str, entry_id: bytes, fields: dict[bytes, bytes], error: str) -> None:
        letter = {**fields, b"reason": b"decode", b"error": error.encode(),
                  b"stream": stream.encode(), b"entry": entry_id}  # fmt: skip
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xadd(self._keys.dead(self._group), letter)  # type: ignore[arg-type]
            pipeline.xack(stream, self._group, entry_id)
            pipeline.execute()
        log.error("entry.buried", stream=stream, entry=entry_id.decode(), error=error)


def _by_stream(items: Iterable[Pending]) -> dict[str, list[Any]]:
    streams: dict[str, list[Any]] = {}
    for item in items:
        streams.setdefault(item.stream, []).append(item.entry_id)
    return streams
