"""Reads new entries: decides which streams come next, and joins this worker's group in each.

What was delivered before is read by `pending_list.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from flybridge.bridge.store.lifetimes import MARK_MARGIN, mark_ttl
from flybridge.bridge.store.scripts import Call, is_spoilt, load, run_all
from flybridge.handlers.loggers import get_logger
from flybridge.workers.claim.claims import Pending
from flybridge.workers.group.beginning import AUTO, Beginning
from flybridge.workers.group.presence import Presence
from flybridge.workers.intake.consumer import (
    NO_CAPS,
    Caps,
    Consumer,
    largest,
    rotated,
    tell_missing,
)
from flybridge.workers.routes.coverage import NOTHING, Coverage

log = get_logger(__name__)

FULL_READ_EVERY = 4
"""While some streams are busy, one read in so many takes in the quiet ones, too."""

NO_HASH = ResponseError("WRONGTYPE of what the group has been in; it is taken for new there")

SPOILT = 2
"""The answer of `group.lua` for a key that is no hash."""

LEAVE_TIMEOUT = 5.0
"""Seconds that a consumer which leaves may spend on handing over what it still holds."""

SWEEP_AFTER = 3_600.0
"""Seconds of idleness, at least, after which a consumer's worker counts as gone."""


class StreamReader:
    """Reads the streams as one consumer of a group.

    Args:
        event_lease: seconds; a consumer that is idle for ten of them may be swept.
        retention: seconds that an entry stays in its stream; the marks of what is done outlive it.
        beginning: subscribes the group, if it is new to what this worker reads.
    """

    def __init__(
        self,
        consumer: Consumer,
        event_lease: float,
        retention: float = 86_400.0,
        beginning: Beginning | None = None,
    ) -> None:
        self._consumer = consumer
        self._redis = consumer.redis
        self._keys = consumer.keys
        self._group = consumer.group
        self._lines = consumer.lines
        self._sizes = consumer.sizes
        self._marks_ms = (mark_ttl(retention) - MARK_MARGIN) * 1000
        self._sweep_ms = int(max(10 * event_lease, SWEEP_AFTER) * 1000)
        self.stalls = consumer.stalls
        self.presence = Presence(
            consumer.redis, consumer.keys, consumer.group, consumer.name, consumer.spoilt, retention
        )
        self._beginning = beginning or Beginning(
            consumer.redis, consumer.keys, consumer.group, AUTO, None
        )
        self._covered: frozenset[str] = frozenset()
        self._grouped: set[str] = set()
        self._unreadable: set[str] = set()
        self._known: dict[str, set[str]] = {}
        self._busy: list[str] = []
        self._reads = 0
        self._ordered_reads = 0
        self._following = threading.Lock()

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that are read: those followed in which our group exists."""
        return self._consumer.streams

    def known_types(self) -> set[str]:
        """The event types of which events have come, as the bridge notes them."""
        return self._names(self._keys.types)

    def replayed_types(self) -> set[str]:
        """The types for which this group has a replay stream."""
        return self._names(self._keys.replays(self._group))

    def subscribe(self, covered: frozenset[str], coverage: Coverage = NOTHING) -> None:
        """Have trimming wait for this group from now on, and tell the group what is handled here.

        Args:
            covered: what this worker reads: `*`, `queue:<queue>` or `type:<type>`.
            coverage: the handlers of this worker.
        """
        if covered != self._covered and self._begins(self._beginning.begin, covered):
            self._covered = covered
        self.presence.tell(covered, coverage)

    def follow(self, streams: Iterable[str]) -> None:
        """Read these streams from now on; a missing group is made, see `group.lua`."""
        # One at a time, for each thread that meets an outage makes the groups again.
        with self._following:
            self._follow(streams)

    def _follow(self, streams: Iterable[str]) -> None:
        wanted = tuple(sorted(streams))
        self._make_groups([stream for stream in wanted if stream not in self._grouped])
        self._consumer.follow(tuple(stream for stream in wanted if stream in self._grouped))

    @property
    def ordered(self) -> tuple[str, ...]:
        """The streams that `read_ordered` reads."""
        return tuple(self._consumer.followed.orders)

    @property
    def unordered(self) -> tuple[str, ...]:
        """The streams that `read` reads."""
        followed = self._consumer.followed
        return tuple(each for each in followed.streams if each not in followed.orders)

    def make_groups_again(self) -> None:
        """Make the groups again, after Redis has lost them (flushed, or failed over)."""
        self._begins(self._beginning.again, self._covered)
        self.presence.beat()
        with self._following:
            self._grouped.clear()
            self._follow(self.streams)

    def read(self, room: int, block: float, caps: Caps = NO_CAPS) -> list[Pending]:
        """New unordered entries, about `room` at most; waits up to `block` seconds for one."""
        streams = self._next_streams(caps)
        if not streams:
            return []
        focused = len(streams) < sum(caps.get(stream, 1) > 0 for stream in self.unordered)
        capped = (caps.get(stream, room) for stream in streams)
        most = min(room // len(streams), self._sizes.most(streams), *capped)
        answer: Any = self._redis.xreadgroup(
            self._group,
            self._consumer.name,
            dict.fromkeys(streams, ">"),
            count=max(1, most),
            block=None if focused else max(1, int(block * 1000)),
        )
        batches = {stream.decode(): raw for stream, raw in answer or []}
        self._busy = list(batches)
        for stream in streams:
            self._sizes.note(stream, largest(batches.get(stream, ())))
        return [
            item for stream, raw in batches.items() for item in self._consumer.pending(stream, raw)
        ]

    def read_ordered(self, room: int, caps: Caps = NO_CAPS) -> list[Pending]:
        """New entries of the ordered streams that are first in their line; does not wait."""
        found: list[Pending] = []
        self._ordered_reads += 1
        for stream in rotated(self.ordered, self._ordered_reads):
            left = min(room - len(found), caps.get(stream, room))
            if left > 0:
                found += self._consumer.lined_up(stream, self._lines.read(stream, left))
        return found

    def listen(self, block: float, caps: Caps = NO_CAPS) -> bool:
        """Wait up to `block` seconds for something new that is ordered.

        Returns:
            False at once when there is nothing to wait for, or too much is pending already.
        """
        streams = [stream for stream in self.ordered if caps.get(stream, 1) > 0]
        return self._lines.listen(streams, block)

    def leave(self) -> None:
        """Remove this consumer from every group; other workers take over what it holds."""
        streams, ends = self.streams, time.monotonic() + LEAVE_TIMEOUT
        while streams and time.monotonic() < ends:
            answers = self._on_each_stream("leave", streams, self._group, self._consumer.name)
            more = []
            for stream, (removed, gone) in answers:
                tell_missing(stream, gone)
                if not removed:
                    more.append(stream)
            streams = tuple(more)
        if streams:
            log.info(
                "consumer.stays",
                consumer=self._consumer.name,
                streams=" ".join(streams),
                hint="it holds many entries; other workers take them over and then remove it",
            )
        self.presence.withdraw()

    def sweep(self) -> None:
        """Remove the consumers of workers that are gone, once all they held was taken over."""
        told = (self._group, self._consumer.name, self._sweep_ms)
        for stream, removed in self._on_each_stream("sweep", self.streams, *told):
            if removed:
                names = " ".join(name.decode(errors="replace") for name in removed)
                log.debug("consumers.swept", stream=stream, consumers=names)

    def _begins(self, begin: Callable[[frozenset[str]], None], covered: frozenset[str]) -> bool:
        """Whether the group has begun. If not, the streams that it has joined before are read."""
        keys = self._keys
        try:
            begin(covered)
        except ResponseError as error:
            if not is_spoilt(error):
                raise
            kinds = {keys.subscriptions: "set", keys.types: "set", keys.starts(self._group): "hash"}
            self._consumer.spoilt.tell(kinds, error)
            return False
        return True

    def _names(self, key: str) -> set[str]:
        """The members of a set of type names; of a spoilt set, those that it had before."""
        try:
            members: Any = self._redis.smembers(key)
        except ResponseError as error:
            if not is_spoilt(error):
                raise
            self._consumer.spoilt.tell({key: "set"}, error)
        else:
            self._known[key] = {member.decode(errors="replace") for member in members}
            self._consumer.spoilt.well(key)
        return self._known.get(key, set())

    def _on_each_stream(
        self, script: str, streams: Sequence[str], *args: str | int
    ) -> Iterator[tuple[str, Any]]:
        calls = [Call(load(script), (stream,), args) for stream in streams]
        for stream, answer in zip(streams, run_all(self._redis, calls), strict=True):
            if not isinstance(answer, Exception):
                yield stream, answer

    def _next_streams(self, caps: Caps) -> Sequence[str]:
        self._reads += 1
        streams = self.unordered
        busy = [each for each in self._busy if each in streams and caps.get(each, 1) > 0]
        if busy and self._reads % FULL_READ_EVERY:
            return busy
        # Redis serves the streams of one call in the order given.
        in_turn = rotated(streams, self._reads)
        return [stream for stream in in_turn if caps.get(stream, 1) > 0]

    def _make_groups(self, streams: Sequence[str]) -> None:
        script = load("group")
        joined, starts = self._keys.joined(self._group), self._keys.starts(self._group)
        calls = [
            Call(script, (stream, joined, starts), (self._group, self._marks_of(stream)))
            for stream in streams
        ]
        for stream, answer in zip(streams, run_all(self._redis, calls), strict=True):
            if isinstance(answer, Exception):
                if stream not in self._unreadable:
                    hint = "no stream; see what wrote it, then rename or delete this key"
                    log.error("stream.unreadable", stream=stream, error=str(answer), hint=hint)
                self._unreadable.add(stream)
            else:
                if answer == SPOILT:
                    self._consumer.spoilt.tell({joined: "hash"}, NO_HASH)
                self._grouped.add(stream)
                self._unreadable.discard(stream)

    def _marks_of(self, stream: str) -> int | str:
        """Ms for which marks tell what this group has done of a stream. None are needed for a
        replay stream: an entry that is done is deleted from it at once."""
        return self._marks_ms if stream.startswith(self._keys.events) else ""
