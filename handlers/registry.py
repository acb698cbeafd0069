"""Which handlers run for which event type. It does not run them and does not import them.

Reads are lock-free and cached per type; every change takes the lock and drops the caches.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar, Unpack

from flybridge.handlers.base import Context, Handler
from flybridge.handlers.batch import BatchContext
from flybridge.handlers.default import LogUnhandled
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.event import Event
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.middleware import Middleware, layer_of
from flybridge.handlers.registering.options import Options
from flybridge.handlers.registering.overlap import shared_types
from flybridge.handlers.registering.patterns import check, warn_of_aliases, warn_of_misspelling
from flybridge.handlers.registering.payload_fit import check_payload
from flybridge.handlers.registering.registration import Entry, Registration, entry_of
from flybridge.handlers.registering.source import Source, source_of
from flybridge.handlers.registering.table import Table

__all__ = ["Registration", "Registry", "handles", "registry", "use"]

log = get_logger(__name__)

_MAX_CACHED = 1024  # a sender can make up types without end

_BatchResults = Sequence[object] | None
DecoratedT = TypeVar(
    "DecoratedT",
    bound=type[Handler]
    | Callable[[], Handler]
    | Callable[[Event, Context], object]
    | Callable[[list[Event], BatchContext], _BatchResults | Awaitable[_BatchResults]],
)
MiddlewareT = TypeVar("MiddlewareT", bound=Middleware | type[Middleware])


class Registry:
    """A table of handlers. Thread-safe; may change while events are handled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        stub = entry_of(source_of(LogUnhandled), ("*",), {})
        builtin = stub.standing_for_none(stands=True)
        self._table = Table(builtin, default=builtin)
        self._cache: dict[str, tuple[Registration, ...]] = {}
        self._composed: dict[int, Registration] = {}
        self._origin = ""
        self._one_per_type = False
        self.revision = 0
        """Grows with every change."""

    def handles(
        self, *patterns: str, **options: Unpack[Options]
    ) -> Callable[[DecoratedT], DecoratedT]:
        """Decorate a Handler class or a function to register it; options as in `register`.

        Raises:
            RegistrationInvalid: see `register`.
        """
        if patterns and not isinstance(patterns[0], str):
            raise RegistrationInvalid(
                "handles was used without event types; write @handles('im.message.receive_v1')"
            )

        def decorate(given: DecoratedT) -> DecoratedT:
            self.register(given, *patterns, **options)
            return given

        return decorate

    def register(self, handler: object, *patterns: str, **options: Unpack[Options]) -> Registration:
        """Run a handler for every event whose type one of the patterns covers.

        Args:
            handler: a Handler subclass or instance, a function(event, context), or a function
                without parameters that returns a Handler; annotate its return type, so that the
                class's options are found.
            patterns: event types, or patterns such as `im.message.*` and `*`; none: the class's
                `event_types`.
            options: override the class's queue, max_attempts, timeout, backoff, backoff_max,
                max_age, rate_limit, concurrency, batch, ordered_by, dedup_by; `Handler` says what
                they mean.

        Raises:
            RegistrationInvalid: a mistake, with what to change.
        """
        source = source_of(handler)
        patterns = patterns or _own_types(source)
        check(patterns, source.where)
        with self._lock:
            entry = self._table.joined(entry_of(source, patterns, options, self._origin))
            self._adopt(self._table.with_entry(entry))
            registration = self._shown(entry)
        warn_of_aliases(patterns)
        warn_of_misspelling(patterns, source.where)
        return registration

    def _adopt(self, table: Table) -> None:
        shared = shared_types(table.written()) if self._one_per_type else []
        if shared:
            raise RegistrationInvalid("\n".join(shared))
        self._change(table)

    def _change(self, table: Table) -> None:
        self._table = table
        self._cache, self._composed = {}, {}
        self.revision += 1

    def use(self, middleware: MiddlewareT) -> MiddlewareT:
        """Have a middleware around every handler, the default too, within those used before.

        Args:
            middleware: a subclass of `Middleware`, called once per process at its first event
                (after the fork, so that it may open connections), or an instance. As a decorator
                of the class it works as well.

        Raises:
            RegistrationInvalid: it is none, would do nothing, or is in use.
        """
        layer = layer_of(middleware)
        with self._lock:
            if any(each.given is middleware for each in self._table.layers):
                raise RegistrationInvalid(f"{layer.name} is in use already; use it once")
            self._change(replace(self._table, layers=(*self._table.layers, layer)))
        return middleware

    def unregister(self, name: str) -> None:
        """Stop running a handler; events that run already are not disturbed.

        It may be the default's: then the first default, which only logs, is back.

        Raises:
            RegistrationInvalid: no handler has that name, or it is the first default.
        """
        with self._lock:
            self._change(self._table.without(name))

    def restore(self, module: str) -> tuple[Registration, ...]:
        """Register again what was unregistered of a module, behind all others.

        Args:
            module: whose code it is, or by whose loading it came; a package stands for all in it.

        Returns:
            What was restored, the default included.

        Raises:
            RegistrationInvalid: a name has become another module's; unregister that first.
        """
        with self._lock:
            table, back = self._table.restored(module)
            if back:
                self._adopt(table)
            return tuple(map(self._shown, back))

    def has(self, module: str, name: str = "") -> bool:
        """Whether a handler of the module, of that name if one is given, or its default is here.

        What counts as the module's is told by `restore`.
        """
        table = self._table
        return any(
            each.is_of(module) and name in ("", each.registration.name)
            for each in (*table.entries.values(), table.default)
        )

    @contextmanager
    def loading(self, module: str) -> Iterator[None]:
        """What is registered in the block came with the module; if it fails, nothing of it stays.

        Code of a block that failed may not run again, as its module is imported; so `restore`
        knows what it had registered.
        """
        before, outer = self._table, self._origin
        self._origin = module
        try:
            yield
        except BaseException:
            with self._lock:
                self._change(self._table.undone(before))
            raise
        finally:
            self._origin = outer

    @property
    def default(self) -> Registration:
        """What runs for types that nothing is registered for; at first it logs them once each."""
        with self._lock:
            return self._shown(self._table.default)

    def set_default(self, handler: object, **options: Unpack[Options]) -> Registration:
        """Replace the default; takes what `register` takes.

        Raises:
            RegistrationInvalid: see `register`.
        """
        default = entry_of(source_of(handler), ("*",), options, self._origin)
        with self._lock:
            self._change(self._table.with_default(default))
            return self._shown(default)

    def settle_unhandled(self) -> None:
        """Have the first default count as a handler: what nobody handles is logged, and done."""
        with self._lock:
            self._change(self._table.with_counting_builtin())

    @property
    def has_default(self) -> bool:
        """Whether the default is a handler, so that no event goes unhandled here."""
        return not self._table.default.registration.stands_for_none

    def lookup(self, event_type: str) -> tuple[Registration, ...]:
        """The handlers of a type, in the order of registration; the default if there are none."""
        found = self._cache.get(event_type)
        return self._find(event_type) if found is None else found

    def _find(self, event_type: str) -> tuple[Registration, ...]:
        with self._lock:
            entries = self._table.covering(event_type) or (self._table.default,)
            found = tuple(map(self._shown, entries))
            if len(self._cache) >= _MAX_CACHED:
                self._cache = {}
            self._cache[event_type] = found
            return found

    def _shown(self, entry: Entry) -> Registration:
        """With the middleware around it: composed once, as long as nothing changes."""
        found = self._composed.get(id(entry))
        if found is None:
            found = self._composed[id(entry)] = entry.within(self._table.layers)
        return found

    def get(self, name: str) -> Registration | None:
        """The handler of that name, be it the default; None if there is none."""
        with self._lock:
            table = self._table
            found = table.entries.get(name)
            if found is None and table.default.registration.name == name:
                found = table.default
            return None if found is None else self._shown(found)

    def handler_of(self, event_type: str) -> object:
        """The user's own object that handles a type: the handler's instance, or the function.

        It is the default's where nothing covers the type. An instance that a class or a factory
        makes is made now, and handles this process' events from then on.

        Raises:
            RegistrationInvalid: several handlers cover the type: `lookup` gives them.
        """
        entries = self._table.covering(event_type) or (self._table.default,)
        if len(entries) > 1:
            names = ", ".join(entry.registration.name for entry in entries)
            raise RegistrationInvalid(f"{event_type} has {names}; use lookup({event_type!r})")
        return entries[0].source.handler()

    def is_registered(self, event_type: str) -> bool:
        """Whether any handler but the default covers the type."""
        return bool(self._table.covering(event_type))

    def list(self) -> tuple[Registration, ...]:
        """All registrations in order, without the default."""
        with self._lock:
            return tuple(map(self._shown, self._table.entries.values()))

    def event_types(self) -> tuple[str, ...]:
        """The types registered by their exact names, aliases resolved."""
        patterns = (pattern for registration in self.list() for pattern in registration.patterns)
        return tuple(dict.fromkeys(pattern for pattern in patterns if "*" not in pattern))

    def written(self) -> dict[str, tuple[str, ...]]:
        """Name -> the types and patterns that the handler was given, aliases and all."""
        with self._lock:
            return self._table.written()

    def allow_one_per_type(self) -> None:
        """Refuse from now on what would give an event type a second handler."""
        self._one_per_type = True

    def check_factories(self) -> None:
        """Call the factories that do not say what they make.

        A factory that fails is left alone: what it needs may be there at its first event only.

        Raises:
            RegistrationInvalid: one returned something that is no handler, or a handler of another
                payload than the events have.
        """
        with self._lock:
            entries = (*self._table.entries.values(), self._table.default)
        for entry in entries:
            if entry.source.is_untold:
                _try_factory(entry)

    def renewed(self, handler: object) -> Registration | None:
        """What a handler was registered as, without middleware and with its instance not made yet.

        None if it was not registered.
        """
        for entry in self._table.entries.values():
            if entry.source.given is handler:
                return entry.fresh().registration
        return None

    def as_registered(self, handler: object) -> tuple[tuple[str, ...], Options] | None:
        """Types and options of a handler, or of an instance's class, as given.

        None if it was not registered.
        """
        for entry in self._table.entries.values():
            if entry.source.given is handler or entry.source.given is type(handler):
                return entry.patterns, entry.options
        return None


def _try_factory(entry: Entry) -> None:
    try:
        handler = entry.source.handler()
    except RegistrationInvalid:
        raise
    except Exception as error:  # a running loop, say: it is called again at the first event
        log.debug("factory.failed", handler=entry.source.name, error=repr(error))
        return
    made = source_of(handler)
    check_payload(made.models, entry.registration.patterns, made.where)


def _own_types(source: Source) -> tuple[str, ...]:
    own: object = source.owner.event_types
    if isinstance(own, list | tuple):
        return tuple(own)
    if isinstance(own, str):
        return (own,)
    raise RegistrationInvalid(
        f"{source.where}: event_types={own!r}; give an event type, or a tuple of them"
    )


registry = Registry()
"""The registry that `@handles` fills and workers read."""

handles = registry.handles
"""Decorates handlers; registers them in `registry`."""

use = registry.use
"""Puts middleware around the handlers of `registry`."""
