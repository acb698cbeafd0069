"""Warns of handlers that differ within a group, and of queues that no worker reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from flybridge.handlers.loggers import get_logger
from flybridge.handlers.types import KNOWN_TYPES, domain
from flybridge.workers.group.presence import AT_WORK

if TYPE_CHECKING:
    from flybridge.workers.routes.coverage import Coverage, Sighting

log = get_logger(__name__)

START_UP = 15.0
"""Seconds that workers may start one after the other before a queue counts as read by nobody."""

BEATING = 10.0
"""Seconds since its last sign of life within which a worker is taken for one that runs now."""

SHOWN_NAMES = 10
"""Names that a line shows at most."""


class GroupWatch:
    """Compares one worker with the others of its group; called by one thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, group: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._clock = clock
        self._compared: tuple[Coverage, ...] = ()
        self._lacking: set[str] = set()
        self._unread_since: dict[str, float] = {}
        self._unread: set[str] = set()

    def look(self, own: Coverage, sightings: Sequence[Sighting], came: Collection[str]) -> None:
        """Log what is new since the last look.

        Args:
            own: what this worker handles.
            sightings: what the workers of the group handle, this one included.
            came: event types of which events have come.
        """
        self._compare(own, [each.coverage for each in sightings if each.age < BEATING])
        at_work = [own, *(each.coverage for each in sightings if each.age < AT_WORK)]
        self._look_for_readers(own, at_work, came)

    def _compare(self, own: Coverage, others: Iterable[Coverage]) -> None:
        compared = (own, *others)
        if compared == self._compared:
            return
        self._compared = compared
        lacking = {name: types for other in others for name, types in _lacking(own, other).items()}
        new = lacking.keys() - self._lacking
        self._lacking = set(lacking)
        if new:
            types = sorted({event_type for name in new for event_type in lacking[name]})
            log.warning(
                "handlers.differ",
                group=self._group,
                lacking=_shown(new),
                types=_shown(types),
                hint="other workers of the group run these handlers for types that this worker "
                "handles without them, and an event runs the handlers of the worker that takes it; "
                "unless a deploy is under way, load the same handlers everywhere, or give them "
                "groups of their own",
            )

    def _look_for_readers(
        self, own: Coverage, at_work: Sequence[Coverage], came: Collection[str]
    ) -> None:
        unread: dict[str, list[str]] = {}
        for event_type in sorted({*came, *own.moved}):
            if not any(each.reads(event_type) for each in at_work) and own.has_handler(event_type):
                queue = own.moved.get(event_type) or domain(event_type)
                unread.setdefault(queue, []).append(event_type)
        now = self._clock()
        self._unread_since = {queue: self._unread_since.get(queue, now) for queue in unread}
        lasting = {queue for queue, since in self._unread_since.items() if now - since >= START_UP}
        for queue in sorted(lasting - self._unread):
            log.warning(
                "queue.unread",
                group=self._group,
                queue=queue,
                types=_shown(unread[queue]),
                hint="there are handlers for these types, and no worker of the group reads their "
                f"queue, so their events wait; start one with --queues {queue}",
            )
        for queue in sorted(self._unread - unread.keys()):
            log.info("queue.read", group=self._group, queue=queue)
        self._unread = (self._unread | lasting) & unread.keys()

    @property
    def unread(self) -> list[str]:
        """The queues with handlers that no worker of the group reads."""
        return sorted(self._unread)


def _lacking(own: Coverage, other: Coverage) -> dict[str, list[str]]:
    """Handler of the other -> the types that both handle, this one without it."""
    if own == other:
        return {}
    exact = {
        pattern
        for coverage in (own, other)
        for patterns in coverage.handlers.values()
        for pattern in patterns
        if "*" not in pattern
    }
    found: dict[str, list[str]] = {}
    for event_type in sorted(KNOWN_TYPES | exact):
        ours = own.handlers_of(event_type)
        for name in other.handlers_of(event_type) - ours if ours else ():
            found.setdefault(name, []).append(event_type)
    return found


def _shown(names: Collection[str]) -> str:
    shown = " ".join(sorted(names)[:SHOWN_NAMES])
    return f"{shown} and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else shown
