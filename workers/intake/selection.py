"""Selects the streams that a worker reads: of its queues, what it handles or what nobody does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flybridge.workers.routes.coverage import Coverage

if TYPE_CHECKING:
    from flybridge.bridge.store.streams import Keys
    from flybridge.handlers.registry import Registry
    from flybridge.workers.group.bridges import Bridges
    from flybridge.workers.group.group_watch import GroupWatch
    from flybridge.workers.group.unhandled import Unhandled
    from flybridge.workers.intake.reader import StreamReader
    from flybridge.workers.routes.routing import Routing


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the events a worker reads."""

    queues: Callable[[], Collection[str]]
    """Their names, as they are now; asked every second."""
    consumes: Callable[[str], bool]
    """Whether it takes events of a queue now."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the streams of one worker, as they are now."""

    reader: StreamReader
    keys: Keys
    group: str
    registry: Registry
    routing: Routing
    share: Share
    unhandled: Unhandled
    watch: GroupWatch
    bridges: Bridges

    def streams(self) -> list[str]:
        """What to read now; what this worker covers is told to the trimming and its group first."""
        queues = self.share.queues()
        coverage = Coverage.of(self.registry, self.routing, queues)
        self.reader.subscribe(self.routing.covered(queues), coverage)
        replayed = self.reader.replayed_types()
        came = self.reader.known_types()
        self.watch.look(coverage, self.reader.presence.sightings, came)
        self.bridges.look()
        known = came | self.routing.types()
        chosen = set(self.unhandled.readable(filter(self._consumes, known | replayed)))
        return [
            *map(self.keys.stream, known & chosen),
            *(self.keys.replay(self.group, name) for name in replayed & chosen),
        ]

    def _consumes(self, event_type: str) -> bool:
        return self.share.consumes(self.routing.queue_of(event_type))
