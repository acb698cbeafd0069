"""Turns what Redis delivers to one consumer into `Pending`, or into a dead letter if unreadable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from redis import Redis

from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.spoilt_keys import SpoiltKeys
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registry import Registry
from flybridge.workers.claim.claims import Pending
from flybridge.workers.claim.stalls import Stalls
from flybridge.workers.intake.ordered_reader import First, OrderedReader
from flybridge.workers.intake.read_size import ReadSizes
from flybridge.workers.routes.ordering import Ordering
from flybridge.workers.run.failures import describe

log = get_logger(__name__)

Raw = tuple[bytes, dict[bytes, bytes]]
"""Entry id and fields."""

Caps = Mapping[str, int]
"""Stream -> how many of its entries to take at most, 0 for none; others as there is room."""

NO_CAPS: Caps = {}

NO_ORDER = Ordering(Registry())

NO_LINES: Mapping[bytes, str] = {}


@dataclass(frozen=True, slots=True)
class Followed:
    """The streams that a consumer reads at one moment."""

    streams: tuple[str, ...]
    orders: Mapping[str, str]
    """Ordered stream -> what it is ordered by."""


class Consumer:
    """A worker as a consumer of its group: name, streams and lines, shared by all threads that
    read.

    Args:
        redis: a client with RESP2 and a socket timeout above the longest wait for an entry.
        name: unique per boot, so that two workers never share pending entries.
        ordering: tells what each stream is ordered by.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        name: str,
        ordering: Ordering = NO_ORDER,
        spoilt: SpoiltKeys | None = None,
    ) -> None:
        self.redis = redis
        self._ordering = ordering
        self.spoilt = spoilt or SpoiltKeys(redis)
        self.sizes = ReadSizes()
        self.keys = keys
        self.group = group
        self.name = name
        self.stalls = Stalls(redis, keys, group)
        self.lines = OrderedReader(redis, keys, group, name, ordering, self.sizes, self.stalls)
        self.followed = Followed((), {})
        """Replaced as a whole: take it once to have streams and orders that fit together."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Those that are read, and whose pending entries are looked at."""
        return self.followed.streams

    def follow(self, streams: tuple[str, ...]) -> None:
        """Read these streams from now on; the group exists in each of them."""
        self.followed = Followed(streams, self.lines.follow(streams))

    def pending(
        self, stream: str, raw: Iterable[Raw], lines: Mapping[bytes, str] = NO_LINES
    ) -> list[Pending]:
        """What was delivered from a stream; unreadable entries become dead letters and are left
        out.

        Args:
            lines: entry id -> where it stands in order.
        """
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

    def lined_up(self, stream: str, firsts: Iterable[First]) -> list[Pending]:
        """The same for an ordered stream; the line of an unreadable entry goes on."""
        lines = {each.entry_id: each.line for each in firsts}
        found = self.pending(stream, [(each.entry_id, each.fields) for each in firsts], lines)
        for event_type in {item.entry.event_type for item in found if not item.line}:
            self._ordering.missed(event_type)
        spoilt = lines.keys() - {item.entry_id.encode() for item in found}
        self.lines.advance(lines[entry_id] for entry_id in spoilt)
        return found

    def _bury(self, stream: str, spoilt: Sequence[tuple[str, str]]) -> None:
        keys = (
            stream,
            self.keys.dead(self.group),
            self.keys.retries_of(self.group, stream),
        )
        calls = [Call(load("bury_unreadable"), keys, (self.group, *each)) for each in spoilt]
        for (entry_id, error), answer in zip(spoilt, run_all(self.redis, calls), strict=True):
            if isinstance(answer, Exception):
                self.spoilt.tell({keys[1]: "stream", stream: "stream"}, answer)
                continue
            self.spoilt.well(keys[1])
            if answer:
                log.error("entry.buried", stream=stream, entry=entry_id, error=error,
                          dead_letters=keys[1])  # fmt: skip


def largest(raw: Iterable[Raw]) -> int:
    """Bytes of the largest envelope among these entries."""
    return max((len(fields.get(b"envelope", b"")) for _, fields in raw), default=0)


def tell_missing(stream: str, ids: Sequence[bytes]) -> None:
    """Log that pending entries are no longer in their stream, for nothing else shows it."""
    if not ids:
        return
    log.error("entry.missing", stream=stream, entry=ids[0].decode(), count=len(ids),
              hint="trimmed, deleted or acknowledged by hand before it was settled, or lost when "
              "Redis failed over; leave trimming to the bridge")  # fmt: skip


def rotated(streams: Sequence[str], turns: int) -> Sequence[str]:
    """The streams with another one first each turn, so that no busy one takes all the room."""
    turn = turns % max(1, len(streams))
    return [*streams[turn:], *streams[:turn]]
