"""Which events are ordered, and by what: the `ordered_by` of their handlers.

Redis keeps the order: the entries of one key stand in a line, and only the first of it may run; see
`line_up.lua`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from flybridge.bridge.store.lifetimes import UNSETTLED
from flybridge.bridge.store.scripts import Call, load
from flybridge.bridge.store.streams import OTHER
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registering.paths import location
from flybridge.handlers.registry import Registration, Registry
from flybridge.handlers.types import KNOWN_TYPES
from flybridge.workers.routes.missing_keys import MissingKeys

log = get_logger(__name__)


def paths_of(registrations: Iterable[Registration]) -> tuple[str, ...]:
    """The paths that handlers of one type are ordered by; more than one is an error."""
    return tuple(dict.fromkeys(each.ordered_by for each in registrations if each.ordered_by))


def line_member(stream: str, entry_id: str) -> str:
    """The member that stands for an entry in its line: its text sorts as entry ids do."""
    ms, _, seq = entry_id.partition("-")
    return f"{ms:0>20}-{seq:0>20}|{stream}"


def advancing(line: str, retries: str, group: str) -> Call:
    """The call that makes the next of a line due when its first is done.

    Args:
        retries: what the names of the group's retries begin with.
    """
    return Call(load("advance"), (line, retries), (group, UNSETTLED))


class Ordering:
    """Tells what each stream is ordered by, as the registry is now."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._ambiguous: set[str] = set()
        self._missing = MissingKeys()

    def of(self, stream: str) -> str:
        """JSON of event type -> keys from the envelope to the value; empty if nothing is ordered.

        The stream that types without one of their own share is ordered for the known ones of them.
        """
        registry = self._registry
        if not any(each.ordered_by for each in (*registry.list(), registry.default)):
            return ""
        name = stream.rpartition(":")[2]
        types = KNOWN_TYPES.union(registry.event_types()) if name == OTHER else {name}
        found = {each: path for each in sorted(types) if (path := self._location(each))}
        return json.dumps(found) if found else ""

    def missed(self, event_type: str) -> None:
        """Warn, once, that an event has no key although its type is ordered."""
        for path in paths_of(self._registry.lookup(event_type))[:1]:
            self._missing.tell("ordered_by", path, event_type)

    def _location(self, event_type: str) -> tuple[str, ...] | None:
        paths = paths_of(self._registry.lookup(event_type))
        if len(paths) > 1 and event_type not in self._ambiguous:
            # Where it is known beforehand, the worker does not start.
            self._ambiguous.add(event_type)
            log.error("ordering.ambiguous", event_type=event_type, paths=" ".join(paths),
                      hint="give its handlers the same; until then the first counts")  # fmt: skip
        return location(paths[0]) if paths else None
