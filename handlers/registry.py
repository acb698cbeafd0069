"""Which handlers run for which event type. It does not run them and does not import them.

Reads are lock-free and cached per type; every change takes the lock and drops the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, Unpack

import structlog

from handlers.default import LogUnhandled
from handlers.errors import RegistrationInvalid
from handlers.options import Options, complete
from handlers.patterns import check, narrow, resolve, warn_of_misspelling
from handlers.source import Run, Source, source_of
from handlers.types import ALIASES, STATUS_OF_ALIAS, matches

log = structlog.get_logger("handlers.registry")

_MAX_CACHED = 1024  # a sender can make up types without end

GivenT = TypeVar("GivenT")


@dataclass(frozen=True, slots=True)
class Registration:
    """A handler with its options: what runs."""

    name: str
    """Unique, and the same in every process: success is recorded under it."""
    patterns: tuple[str, ...]
    """Exact types and patterns, aliases resolved."""
    queue: str | None
    max_attempts: int
    timeout: float
    backoff: float
    backoff_max: float
    max_age: float | None
    rate_limit: str | float | None
    concurrency: int | None
    run: Run
    """Returns an awaitable for async handlers; may do so even where `is_async` is False."""
    is_async: bool
    where: str
    """`module:line`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    source: Source
    patterns: tuple[str, ...]  # as given, aliases and all
    options: Options
    registration: Registration


class Registry:
    """A table of handlers. Thread-safe; may change while events are handled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._cache: dict[str, tuple[Registration, ...]] = {}
        self._aliases_seen: set[str] = set()
        self._default = _entry(source_of(LogUnhandled), ("*",), {}).registration

    def handles(self, *patterns: str, **options: Unpack[Options]) -> Callable[[GivenT], GivenT]:
        """Decorate a Handler class or a function to register it; options as in `register`.

        Raises:
            RegistrationInvalid: see `register`.
        """
        if patterns and not isinstance(patterns[0], str):
            raise RegistrationInvalid(
                "handles was used without event types; write @handles('im.message.receive_v1')"
            )

        def decorate(given: GivenT) -> GivenT:
            self.register(given, *patterns, **options)
            return given

        return decorate

    def register(self, handler: object, *patterns: str, **options: Unpack[Options]) -> Registration:
        """Run a handler for every event whose type one of the patterns covers.

        Args:
            handler: a Handler subclass or instance, a function(event, context), or a function
                without parameters that returns a Handler; annotate its return type, so that the
                class's options are found.
            patterns: event types, or patterns such as `im.message.*` and `*`.
            options: override the class's queue, max_attempts, timeout, backoff, backoff_max,
                max_age, rate_limit, concurrency; `Handler` says what they mean.

        Raises:
            RegistrationInvalid: a mistake, with what to change.
        """
        source = source_of(handler)
        check(patterns, source.where)
        with self._lock:
            entry = self._joined(_entry(source, patterns, options))
            self._entries[entry.registration.name] = entry
            self._cache = {}
            self._warn_of_aliases(patterns)
        warn_of_misspelling(patterns, source.where)
        return entry.registration

    def _joined(self, new: _Entry) -> _Entry:
        """`new`, together with what the same handler was registered for before."""
        name = new.registration.name
        old = self._entries.get(name)
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
        return _entry(old.source, old.patterns + new.patterns, old.options)

    def _warn_of_aliases(self, patterns: tuple[str, ...]) -> None:
        for alias in patterns:
            if alias in ALIASES and alias not in self._aliases_seen:
                self._aliases_seen.add(alias)
                status = STATUS_OF_ALIAS.get(alias)
                narrowed = {"status": status} if status else {}
                log.warning("alias.resolved", alias=alias, event_type=ALIASES[alias], **narrowed)

    def unregister(self, name: str) -> None:
        """Stop running a handler; events that run already are not disturbed.

        Raises:
            RegistrationInvalid: no handler has that name.
        """
        with self._lock:
            if name not in self._entries:
                known = ", ".join(self._entries) or "none"
                raise RegistrationInvalid(f"no handler is named {name!r}; registered: {known}")
            del self._entries[name]
            self._cache = {}

    @property
    def default(self) -> Registration:
        """What runs for types that nothing is registered for; at first it logs them once each."""
        return self._default

    def set_default(self, handler: object, **options: Unpack[Options]) -> Registration:
        """Replace the default; takes what `register` takes.

        Raises:
            RegistrationInvalid: see `register`.
        """
        default = _entry(source_of(handler), ("*",), options).registration
        with self._lock:
            self._default = default
            self._cache = {}
        return default

    def lookup(self, event_type: str) -> tuple[Registration, ...]:
        """The handlers of a type, in the order of registration; the default if there are none."""
        found = self._cache.get(event_type)
        return self._find(event_type) if found is None else found

    def _find(self, event_type: str) -> tuple[Registration, ...]:
        with self._lock:
            found = self._covering(event_type) or (self._default,)
            if len(self._cache) >= _MAX_CACHED:
                self._cache = {}
            self._cache[event_type] = found
            return found

    def _covering(self, event_type: str) -> tuple[Registration, ...]:
        registrations = (entry.registration for entry in self._entries.values())
        return tuple(
            registration
            for registration in registrations
            if any(matches(pattern, event_type) for pattern in registration.patterns)
        )

    def is_registered(self, event_type: str) -> bool:
        """Whether any handler but the default covers the type."""
        with self._lock:
            return bool(self._covering(event_type))

    def list(self) -> tuple[Registration, ...]:
        """All registrations in order, without the default."""
        with self._lock:
            return tuple(entry.registration for entry in self._entries.values())

    def event_types(self) -> tuple[str, ...]:
        """The types registered by their exact names, aliases resolved."""
        patterns = (pattern for registration in self.list() for pattern in registration.patterns)
        return tuple(dict.fromkeys(pattern for pattern in patterns if "*" not in pattern))


def _entry(source: Source, patterns: tuple[str, ...], options: Options) -> _Entry:
    registration = Registration(
        name=options.get("name", source.name),
        patterns=resolve(patterns),
        run=narrow(source.run, patterns),
        is_async=source.is_async,
        where=source.where,
        **complete(options, source.owner, source.where),
    )
    return _Entry(source, patterns, options, registration)


registry = Registry()
"""The registry that `@handles` fills and workers read."""

handles = registry.handles
