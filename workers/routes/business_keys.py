"""Finds the business keys of events: the values that `dedup_by` of their handlers points to.

`claim.lua` decides which event holds a key, and whether its handler has succeeded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers.envelope.lenient_json import DAMAGED, decode
from flybridge.handlers.registering.paths import location, value_at
from flybridge.handlers.registry import Registration, Registry
from flybridge.workers.routes.missing_keys import MissingKeys


@dataclass(frozen=True, slots=True)
class BusinessKey:
    """A value for which a handler succeeds once among the events of a type."""

    handler: str
    name: str
    """In Redis."""


class BusinessKeys:
    """Finds the business keys of events for one group."""

    def __init__(self, registry: Registry, keys: Keys, group: str) -> None:
        self._registry = registry
        self._keys = keys
        self._group = group
        self._missing = MissingKeys()

    def of(self, entry: Entry) -> tuple[BusinessKey, ...]:
        """One for each handler that has a `dedup_by`, where the envelope has a value."""
        asking = [each for each in self._registry.lookup(entry.event_type) if each.dedup_by]
        return self._found(entry, asking) if asking else ()

    def _found(self, entry: Entry, asking: list[Registration]) -> tuple[BusinessKey, ...]:
        try:
            envelope = decode(entry.envelope)
        except (ValueError, RecursionError):
            # Its attempt fails on it, and becomes a dead letter.
            return ()
        found = []
        for each in asking:
            path = location(each.dedup_by or "")
            value = value_at(envelope, path) if path else None
            # Two damaged values may have been different, and the second event would be lost.
            if value is None or DAMAGED in value:
                self._missing.tell("dedup_by", each.dedup_by or "", entry.event_type)
            else:
                name = self._keys.business(self._group, _digest(each.name, entry.event_type, value))
                found.append(BusinessKey(each.name, name))
        return tuple(found)


def _digest(handler: str, event_type: str, value: str) -> str:
    text = f"{handler}\0{event_type}\0{value}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:40]
