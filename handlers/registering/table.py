"""All that a registry knows at one moment. Immutable: each change makes another table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.middleware import Layer
from flybridge.handlers.registering.registration import Entry, entry_of
from flybridge.handlers.types import matches

MAX_REMOVED = 1024
"""Unregistered handlers that are remembered: a program may register and unregister all day."""


@dataclass(frozen=True, slots=True)
class Table:
    """The handlers in order, the default, the middleware; and what was taken away."""

    builtin: Entry
    """The default that was there first."""
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
        """Name -> the types and patterns that the handler was given, aliases and all."""
        return {name: entry.patterns for name, entry in self.entries.items()}

    def joined(self, new: Entry) -> Entry:
        """`new`, together with what the same handler was registered for before.

        Raises:
            RegistrationInvalid: the name is another's, or the same was said twice.
        """
        name = new.registration.name
        old = self.entries.get(name)
        if old is None:
            return new
        if old.source.given is not new.source.given:
            raise RegistrationInvalid(
                f"{new.source.where}: {name!r} is the name of the handler at {old.source.where}; "
                "pass name=…, or unregister the other first"
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
        """It takes the place of its namesake, or comes last."""
        entries = {**self.entries, entry.registration.name: entry}
        return replace(self, entries=entries, removed=_without(entry, self.removed))

    def with_default(self, entry: Entry) -> Table:
        """It is the default."""
        removed = _without(entry, self.removed_defaults)
        return replace(self, default=entry, removed_defaults=removed)

    def with_counting_builtin(self) -> Table:
        """The first default is a handler like any other."""
        builtin = self.builtin.standing_for_none(stands=False)
        default = builtin if self.default is self.builtin else self.default
        return replace(self, builtin=builtin, default=default)

    def without(self, name: str) -> Table:
        """Neither a handler nor the default has the name; the first default cannot go.

        Raises:
            RegistrationInvalid: nobody had it.
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
        """What was taken away of a module is back, behind all others; and what that is.

        Raises:
            RegistrationInvalid: a name has become another module's.
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
        """As it was before; what has come since counts as taken away."""
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
    """Without what the same code was registered as, by that name."""
    name, code = entry.registration.name, entry.source.name
    return tuple(
        each for each in entries if (each.registration.name, each.source.name) != (name, code)
    )
