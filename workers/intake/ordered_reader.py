"""Reads the ordered streams: gives what is first in the line of its key; the rest waits there.

Reading and lining up is one script, which cannot block; so a reader waits for new entries by an
XREAD that takes nothing. The scripts say why the order holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from flybridge.bridge.store.lifetimes import UNSETTLED
from flybridge.bridge.store.scripts import Call, load, pairs, run_all
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger
from flybridge.workers.claim.stalls import Stalls
from flybridge.workers.intake.read_size import ReadSizes
from flybridge.workers.routes.ordering import Ordering, advancing

READ_AHEAD = 5_000
"""Pending entries of an ordered stream, of all workers, beyond which nothing new of it is read."""

CROWDED_WAIT = 0.1
"""Seconds between looks whether there are fewer."""

PAGE = 100
"""Entries that one call lines up, at most: Redis decodes their envelopes."""

DECODED = 2 * 1024 * 1024
"""Bytes of envelopes in one such call, as far as they can be foreseen: some 20 ms of Redis."""

LARGEST = 1024 * 1024
"""Bytes of an envelope that is searched for its key; decoding a larger one would hold Redis up."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class First:
    """An entry that is first in its line, or has none."""

    line: str
    """Empty for an event without a key."""
    entry_id: bytes
    fields: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer of one call of `line_up.lua`."""

    read: int
    """New entries, whether first or not; -1 when too many are pending already."""
    gone: list[bytes]
    """Ids of entries that were deleted, or acknowledged by hand, before they were settled."""
    firsts: list[First]


class OrderedReader:
    """Reads the ordered streams as one consumer of a group.

    Args:
        redis: a client whose commands are not repeated unseen.
        stalls: is told of lines in which entries wait.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        consumer: str,
        ordering: Ordering,
        sizes: ReadSizes,
        stalls: Stalls,
    ) -> None:
        self._sizes = sizes
        self._too_large: set[str] = set()
        self._redis = redis
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._ordering = ordering
        self._stalls = stalls
        self._prefix = keys.order(group)
        self._retries = keys.retries(group)
        self._last: dict[str, bytes] = {}
        self._order: dict[str, str] = {}

    def follow(self, streams: Iterable[str]) -> dict[str, str]:
        """The ordered ones among the streams that are read from now on, and by what each is."""
        orders = {stream: order for stream in streams if (order := self._ordering.of(stream))}
        # Nothing is removed, for another thread may be reading what is followed no longer.
        self._order |= orders
        return orders

    def read(self, stream: str, room: int) -> list[First]:
        """New entries that are first in their line, `room` at most."""
        found: list[First] = []
        count = self._page(stream, room)
        while len(found) < room:
            taken = self._line_up(stream, room - len(found), count)
            found += taken.firsts
            if taken.read < count:
                break
            # All of one long line, of which nothing can run: it takes no room.
            count = self._page(stream, room - len(found) if taken.firsts else 2 * count)
        return found

    def take(self, stream: str, ids: Sequence[bytes | str], room: int) -> Taken:
        """Take these entries from any consumer; those that are not first wait in their line."""
        firsts: list[First] = []
        gone: list[bytes] = []
        start = 0
        while start < len(ids):
            end = start + self._page(stream)
            taken = self._line_up(stream, room - len(firsts), 0, ids[start:end])
            firsts += taken.firsts
            gone += taken.gone
            start = end
        return Taken(0, gone, firsts)

    def listen(self, streams: Sequence[str], block: float) -> bool:
        """Wait up to `block` seconds until one of them has a new entry; False if none can be.

        It is a shorter wait while too many entries of one are pending.
        """
        after: dict[Any, Any] = {each: self._last[each] for each in streams if each in self._last}
        if not after:
            return False
        wait = block if len(after) == len(streams) else min(block, CROWDED_WAIT)
        self._redis.xread(after, count=1, block=max(1, int(wait * 1000)))
        return True

    def advance(self, lines: Iterable[str]) -> None:
        """Let the next run where the first of a line is no longer to be handled."""
        calls = [
            advancing(line, self._retries, self._group) for line in dict.fromkeys(lines) if line
        ]
        if calls:
            run_all(self._redis, calls)

    def _page(self, stream: str, most: int = PAGE) -> int:
        return max(1, min(most, PAGE, self._sizes.most([stream], DECODED)))

    def _line_up(
        self, stream: str, most: int, count: int, ids: Sequence[bytes | str] = ()
    ) -> Taken:
        keys = (stream, self._keys.retries_of(self._group, stream), self._prefix)
        told = (self._group, self._consumer, self._order[stream], UNSETTLED)
        call = Call(load("line_up"), keys, (*told, most, count, READ_AHEAD, LARGEST, *ids))
        (answer,) = run_all(self._redis, [call])
        if isinstance(answer, Exception):
            # The key is no stream any more; the reader logs that, and leaves it out.
            raise answer
        read, last, gone, behind, given, largest = answer
        self._note_size(stream, largest)
        if count:
            self._note(stream, read, last)
        waiting = [line.decode() for line in behind]
        self._stalls.met("line", waiting)
        # A first entry that was deleted or acknowledged by hand must not block its key for ever.
        self.advance(waiting)
        return Taken(read, gone, [First(line.decode(), id_, pairs(flat))
                                  for line, id_, flat in given])  # fmt: skip

    def _note_size(self, stream: str, largest: int) -> None:
        self._sizes.note(stream, largest)
        if largest > LARGEST and stream not in self._too_large:
            self._too_large.add(stream)
            log.warning("event.unordered", stream=stream, bytes=largest,
                        hint="an event above 1 MiB is not searched for the value of ordered_by: "
                        "it runs at any time; keep such events small, or out of order")  # fmt: skip

    def _note(self, stream: str, read: int, last: bytes) -> None:
        """Remember after which entry to `listen`; not while too many are pending, for that would
        return at once each time.
        """
        if read < 0:
            self._last.pop(stream, None)
        else:
            self._last[stream] = last
