"""Decides what becomes of event types that this worker has no handler for.

Such a type is left to the workers of the group that have a handler. Where nobody has one for a
while, its events become dead letters with the reason `unhandled`: they do not hold up trimming, and
can be replayed once there is a handler.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from flybridge.bridge.store.streams import OTHER
from flybridge.handlers.default import stub
from flybridge.handlers.loggers import get_logger
from flybridge.workers.claim.outcomes import LOOK_AGAIN, UNHANDLED, Failure, Outcome
from flybridge.workers.group.presence import AT_WORK, Presence

if TYPE_CHECKING:
    from flybridge.handlers.registry import Registry
    from flybridge.workers.routes.coverage import Coverage, Sighting

log = get_logger(__name__)

HAD_ONE = 60
"""Factor by which events wait longer where a worker had a handler before, and may be restarting."""

MAX_TYPES = 1024
"""Types that are remembered: a sender can make up types without end."""

LOG_PERIOD = 60.0
"""Seconds between two lines at least."""

SHOWN_TYPES = 10
"""Types that one line names."""

_TYPE = re.compile(r"[A-Za-z0-9_.]{1,128}")


class Fate(Enum):
    """What a worker does with the events of a type."""

    OURS = auto()
    """It has a handler, or a default handler and no other worker has a handler."""
    THEIRS = auto()
    """Another worker has a handler."""
    WAIT = auto()
    """No worker has one yet."""
    NOBODYS = auto()
    """No worker has had one for long enough."""


class Unhandled:
    """Decides for one worker; callable from any thread.

    Args:
        group: stands in the dead letters.
        after: seconds that events wait for a worker with a handler.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: Registry,
        presence: Presence,
        group: str,
        after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._presence = presence
        self._group = group
        self._after = after
        self._clock = clock
        self._began = clock()
        self._since: dict[str, float] = {}
        self._told: set[str] = set()
        self._known: frozenset[str] | None = None
        self._handled: tuple[int, dict[str, bool]] = (-1, {})

    def readable(self, types: Iterable[str]) -> list[str]:
        """The types, out of these, that this worker should read now."""
        names = frozenset(types)
        seen = self._presence.sightings
        fates = {name: self.fate(name, seen) for name in names if name != OTHER}
        if self._known is not None:
            # Types whose first event has just come. Whether events of older ones wait is unknown.
            for name in sorted(names - self._known):
                if fates.get(name) is Fate.WAIT:
                    self._tell(name)
        self._known = names
        left = {name for name, fate in fates.items() if fate in (Fate.THEIRS, Fate.WAIT)}
        return sorted(names - left)

    def outcomes(self, event_types: Iterable[str]) -> dict[str, Outcome]:
        """How events of these types end that have been read; those left out are run.

        Redis is asked who has a handler, unless this worker has one for each: of a worker that has
        started before an event came, that event must not be taken away.

        Raises:
            redis.RedisError: nobody knows; ask again.
        """
        others = [name for name in set(event_types) if not self._has_handler(name)]
        if not others:
            return {}
        seen = self._presence.look()
        ends = {name: self._outcome(name, self.fate(name, seen)) for name in others}
        return {name: end for name, end in ends.items() if end}

    def _outcome(self, event_type: str, fate: Fate) -> Outcome | None:
        if fate is Fate.OURS:
            return None
        if fate is Fate.THEIRS:
            return Outcome(retry_after=LOOK_AGAIN, returned=True)
        self._tell(event_type)
        if fate is Fate.WAIT:
            return Outcome(retry_after=max(LOOK_AGAIN, self._left(event_type)), returned=True)
        error = f"no worker of group {self._group} has a handler for this type"
        return Outcome(failed=(Failure("", UNHANDLED, error),))

    def fate(self, event_type: str, seen: Sequence[Sighting]) -> Fate:
        """What this worker does with the events of a type, by what it has seen of the others."""
        if self._has_handler(event_type):
            return Fate.OURS
        if self._registry.has_default:
            at_work = _within(AT_WORK, seen)
            others = any(each.handlers_of(event_type) for each in at_work)
            return Fate.THEIRS if others else Fate.OURS
        had_one = _within(max(AT_WORK, HAD_ONE * self._after), seen)
        if any(each.takes(event_type) for each in had_one):
            self._since.pop(event_type, None)
            return Fate.THEIRS
        return Fate.WAIT if self._left(event_type) > 0 else Fate.NOBODYS

    def _left(self, event_type: str) -> float:
        """Seconds until nobody has had a handler for long enough."""
        now = self._clock()
        if event_type not in self._since and len(self._since) < MAX_TYPES:
            self._since[event_type] = now
        return self._since.get(event_type, self._began) + self._after - now

    def _has_handler(self, event_type: str) -> bool:
        revision, known = self._handled
        if revision != self._registry.revision:
            revision, known = self._handled = (self._registry.revision, {})
        found = known.get(event_type)
        if found is None:
            found = self._registry.is_registered(event_type)
            if len(known) < MAX_TYPES:
                known[event_type] = found
        return found

    def _tell(self, event_type: str) -> None:
        if event_type in self._told or len(self._told) >= MAX_TYPES:
            return
        self._told.add(event_type)
        shown = {"suggestion": stub(event_type)} if _TYPE.fullmatch(event_type) else {}
        log.warning(
            "event.unhandled",
            event_type=event_type[:128],
            group=self._group,
            hint="no worker of the group has a handler for this type; its events become dead "
            f"letters{_when(self._after)}. Start a worker that has one, then: flybridge dlq replay "
            "--all --reason unhandled",
            **shown,
        )


class Burials:
    """Logs once a minute how many events became dead letters that way: there may be thousands.

    Called by one thread.

    Args:
        dead_letters: the stream where they are.
        clock: monotonic seconds.
    """

    def __init__(self, dead_letters: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._dead_letters = dead_letters
        self._clock = clock
        self._types: Counter[str] = Counter()
        self._displaced = 0
        self._told = clock() - LOG_PERIOD

    def add(self, event_type: str) -> None:
        """Count an event of this type as a dead letter."""
        self._types[event_type[:128]] += 1

    def tell(self, displaced: int) -> None:
        """Log what came since the last line, at most once a period.

        Args:
            displaced: dead letters, ever, that made room for newer ones.
        """
        if not self._types or self._clock() - self._told < LOG_PERIOD:
            return
        log.warning(
            "events.unhandled",
            count=self._types.total(),
            types=" ".join(name for name, _ in self._types.most_common(SHOWN_TYPES)),
            displaced=displaced - self._displaced,
            dead_letters=self._dead_letters,
            hint="see them: flybridge dlq list --reason unhandled",
        )
        self._told, self._displaced = self._clock(), displaced
        self._types.clear()


def _within(seconds: float, seen: Sequence[Sighting]) -> list[Coverage]:
    return [each.coverage for each in seen if each.age < seconds]


def _when(after: float) -> str:
    return f" when that has been so for {after:g} s" if after else ""
