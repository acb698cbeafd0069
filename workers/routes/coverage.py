"""What a worker handles, in the form in which it tells its group.

Each worker leaves a type that it has no handler for to those that say they have one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from flybridge.handlers.types import canonical, domain, matches

if TYPE_CHECKING:
    from flybridge.handlers.registry import Registry
    from flybridge.workers.routes.routing import Routing


class Coverage(Struct, frozen=True):
    """The handlers of a worker, and the queues that it reads."""

    handlers: Mapping[str, tuple[str, ...]] = {}
    """Handler -> the types and patterns it is registered for; without the default."""
    queues: tuple[str, ...] = ()
    moved: Mapping[str, str] = {}
    """Event type -> queue, where a handler names another than the type's domain."""
    default: bool = False
    """Whether a default handler takes what no other handler is for."""

    @classmethod
    def of(cls, registry: Registry, routing: Routing, queues: Collection[str]) -> Coverage:
        """That of a worker which reads these queues."""
        return cls(
            {each.name: each.patterns for each in registry.list()},
            tuple(sorted(queues)),
            routing.moved(),
            registry.has_default,
        )

    def handlers_of(self, event_type: str) -> frozenset[str]:
        """The handlers that the worker runs for a type; none if it does not read its queue."""
        return self._named(event_type) if self.reads(event_type) else frozenset()

    def has_handler(self, event_type: str) -> bool:
        """Whether the worker has a handler for a type, though it may not read its queue."""
        return bool(self._named(event_type))

    def _named(self, event_type: str) -> frozenset[str]:
        return frozenset(
            name
            for name, patterns in self.handlers.items()
            if any(matches(pattern, event_type) for pattern in patterns)
        )

    def takes(self, event_type: str) -> bool:
        """Whether the worker handles a type, be it by its default."""
        return bool(self.handlers_of(event_type)) or (self.default and self.reads(event_type))

    def reads(self, event_type: str) -> bool:
        """Whether the worker reads the queue in which it looks for a type."""
        queue = self.moved.get(canonical(event_type)) or domain(event_type)
        return queue in self.queues

    def to_json(self) -> bytes:
        """The same for the same coverage."""
        return msgspec.json.encode(self, order="deterministic")

    @classmethod
    def from_json(cls, told: bytes) -> Coverage:
        """What `to_json` wrote; nothing for what another program may have written there."""
        try:
            return msgspec.json.decode(told, type=cls)
        except msgspec.DecodeError:
            return cls()


NOTHING = Coverage()


class Sighting(Struct, frozen=True):
    """A coverage that workers of the group have announced."""

    coverage: Coverage
    age: float
    """Seconds by Redis' clock since a worker last said that it has it."""
