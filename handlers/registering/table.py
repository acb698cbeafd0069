"""The content of a registry at one moment. Immutable: each change makes a new table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.middleware import Layer
from flybridge.handlers.registering.registration import Entry, entry_of
from flybridge.handlers.types import matches

MAX_REMOVED = 1024
"""Unregistered handlers that are remembered, the latest ones."""


@dataclass(frozen=True, slots=True)
class Table:
    """The handlers in order, the default, the middleware, and what was unregistered."""

    builtin: Entry
    """The first default, which only logs."""
    default: Entry
    entries: Mapping[str, Entry] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    removed: tuple[Entry, ...] = ()
    removed_defaults: tuple[Entry, ...] = ()

    def covering(self, event_type: str) -> tuple[Entry, ...]:
        """The handlers of a type, without the default."""
        return tuple(
            entry
            for entry in self.entries.values()
            if any(matches(pattern, event_type) for pattern in entry.registration.patterns)
        )

    def written(self) -> dict[str, tuple[str, ...]]:
        """Name -> types and patterns as the user gave them, aliases included."""
        return {name: entry.patterns for name, entry in self.entries.items()}

    def joined(self, new: Entry) -> Entry:
        """The entry, with the types that the same handler is registered for already.

        Raises:
            RegistrationInvalid: another handler has the name, or the handler has the type already.
        """
        name = new.registration.name
        old = self.entries.get(name)
        if old is None:
            return new
        if old.source.given is not new.source.given:
            raise RegistrationInvalid(
                f"{new.source.where}: {name!r} is the name of the handler at {old.source.where}; "
                "pass another name=…, or unregister that handler first"
            )
        twice = set(old.patterns) & set(new.patterns)
        if twice:
            raise RegistrationInvalid(
                f"{new.source.where}: {name} is registered for {', '.join(sorted(twice))} already; "
                "remove one of the two"
            )
        if old.options != new.options:
            raise RegistrationInvalid(
                f"{new.source.where}: {name} was registered with other options; "
                "register it once, with all its event types"
            )
        return entry_of(old.source, old.patterns + new.patterns, old.options, old.origin)

    def with_entry(self, entry: Entry) -> Table:
        """A table with this entry: in the place of the one with the same name, or last."""
        entries = {**self.entries, entry.registration.name: entry}
        return replace(self, entries=entries, removed=_without(entry, self.removed))

    def with_default(self, entry: Entry) -> Table:
        """A table with this default."""
        removed = _without(entry, self.removed_defaults)
        return replace(self, default=entry, removed_defaults=removed)

    def with_counting_builtin(self) -> Table:
        """A table whose first default counts as a handler."""
        builtin = self.builtin.standing_for_none(stands=False)
        default = builtin if self.default is self.builtin else self.default
        return replace(self, builtin=builtin, default=default)

    def without(self, name: str) -> Table:
        """A table without the handler and the default of that name; the first default stays.

        Raises:
            RegistrationInvalid: no handler has the name.
        """
        entry, default = self.entries.get(name), self.default
        is_default = default.registration.name == name and default is not self.builtin
        if entry is None and not is_default:
            raise self._no_such(name)
        table = self
        if entry is not None:
            entries = {key: each for key, each in self.entries.items() if key != name}
            table = replace(table, entries=entries, removed=_with(entry, self.removed))
        if is_default:
            removed = _with(default, self.removed_defaults)
            table = replace(table, default=self.builtin, removed_defaults=removed)
        return table

    def restored(self, module: str) -> tuple[Table, tuple[Entry, ...]]:
        """A table with the unregistered entries of a module behind all others; and these entries.

        Raises:
            RegistrationInvalid: another module's handler has one of the names now.
        """
        back = []
        for each in self.removed:
            holder = self.entries.get(each.registration.name)
            if each.is_of(module) and (holder is None or not holder.is_of(module)):
                back.append(self.joined(each))
        defaults = [each for each in self.removed_defaults if each.is_of(module)][-1:]
        table = self
        for entry in back:
            table = table.with_entry(entry)
        for entry in defaults:
            table = table.with_default(entry)
        return table, (*back, *defaults)

    def undone(self, before: Table) -> Table:
        """The earlier table, with all that was added since among the unregistered entries."""
        removed, removed_defaults = self.removed, self.removed_defaults
        for entry in self.entries.values():
            removed = _with(entry, removed)
        for entry in before.entries.values():
            removed = _without(entry, removed)
        if self.default not in (before.default, self.builtin):
            removed_defaults = _with(self.default, removed_defaults)
        return replace(before, removed=removed, removed_defaults=removed_defaults)

    def _no_such(self, name: str) -> RegistrationInvalid:
        if name == self.builtin.registration.name:
            return RegistrationInvalid(
                f"{name} is the default that only logs; replace it with set_default"
            )
        known = ", ".join(self.entries) or "none"
        return RegistrationInvalid(f"no handler is named {name!r}; registered: {known}")


def _with(entry: Entry, removed: Iterable[Entry]) -> tuple[Entry, ...]:
    return (*_without(entry, removed), entry)[-MAX_REMOVED:]


def _without(entry: Entry, entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """All entries but those of the same name and code."""
    name, code = entry.registration.name, entry.source.name
    return tuple(
        each for each in entries if (each.registration.name, each.source.name) != (name, code)
    )
