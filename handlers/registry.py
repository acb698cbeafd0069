"""The registry: which handlers run for which event type.

Look-ups take no lock and are cached per type; every change takes the lock and drops the caches.
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

_MAX_CACHED = 1024  # types; a sender can invent any number of them

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
    """The handlers of a process. Thread-safe; it may change while events are handled."""

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
        """Increases with every change."""

    def handles(
        self, *patterns: str, **options: Unpack[Options]
    ) -> Callable[[DecoratedT], DecoratedT]:
        """Decorator that registers a Handler class or a function; options as in `register`.

        Raises:
            RegistrationInvalid: see `register`.
        """
        if patterns and not isinstance(patterns[0], str):
            raise RegistrationInvalid(
                "@handles was used without event types; write @handles('im.message.receive_v1')"
            )

        def decorate(given: DecoratedT) -> DecoratedT:
            self.register(given, *patterns, **options)
            return given

        return decorate

    def register(self, handler: object, *patterns: str, **options: Unpack[Options]) -> Registration:
        """Register a handler for every event type that one of the patterns covers.

        Args:
            handler: a Handler subclass or instance, a function(event, context), or a function
                without parameters that returns a Handler; annotate its return type, so that the
                options of the class are found.
            patterns: event types, or patterns such as `im.message.*` and `*`; none: the
                `event_types` of the class.
            options: take precedence over the attributes of the class; `Handler` says what they
                mean.

        Raises:
            RegistrationInvalid: the handler, a pattern or an option is wrong; the message says what
                to change.
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
        """Put a middleware around every handler and the default, inside those used before.

        It can be used as a decorator of the class.

        Args:
            middleware: an instance of a subclass of `Middleware`, or the class itself, which is
                called once per process at the first event: after the fork, so that it may open
                connections.

        Raises:
            RegistrationInvalid: it is not a middleware, has no hooks, or is in use already.
        """
        layer = layer_of(middleware)
        with self._lock:
            if any(each.given is middleware for each in self._table.layers):
                raise RegistrationInvalid(f"{layer.name} is in use already; use it once")
            self._change(replace(self._table, layers=(*self._table.layers, layer)))
        return middleware

    def unregister(self, name: str) -> None:
        """Remove a handler; events that it handles at the moment are finished.

        Removing a default that was set brings back the first one, which only logs.

        Raises:
            RegistrationInvalid: no handler has that name, or it is the first default.
        """
        with self._lock:
            self._change(self._table.without(name))

    def restore(self, module: str) -> tuple[Registration, ...]:
        """Register the unregistered handlers of a module again, behind all others.

        Args:
            module: the module that holds their code, or whose import registered them; a package
                stands for all of its modules.

        Returns:
            The restored registrations, the default included.

        Raises:
            RegistrationInvalid: another module's handler has the name now; unregister that first.
        """
        with self._lock:
            table, back = self._table.restored(module)
            if back:
                self._adopt(table)
            return tuple(map(self._shown, back))

    def has(self, module: str, name: str = "") -> bool:
        """Whether a handler or the default of the module is registered, under that name if given.

        `restore` says which handlers belong to a module.
        """
        table = self._table
        return any(
            each.is_of(module) and name in ("", each.registration.name)
            for each in (*table.entries.values(), table.default)
        )

    @contextmanager
    def loading(self, module: str) -> Iterator[None]:
        """Note that what the block registers belongs to a module; undo it if the block fails.

        `restore` can bring back what was undone: a module that Python has imported does not run
        again.
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
        """The handler of types that no other covers; the first default logs each type once."""
        with self._lock:
            return self._shown(self._table.default)

    def set_default(self, handler: object, **options: Unpack[Options]) -> Registration:
        """Replace the default; handler and options as in `register`.

        Raises:
            RegistrationInvalid: see `register`.
        """
        default = entry_of(source_of(handler), ("*",), options, self._origin)
        with self._lock:
            self._change(self._table.with_default(default))
            return self._shown(default)

    def settle_unhandled(self) -> None:
        """Make the first default count as a handler: unhandled events are logged and are done."""
        with self._lock:
            self._change(self._table.with_counting_builtin())

    @property
    def has_default(self) -> bool:
        """Whether the default counts as a handler, so that no event is unhandled."""
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
        """The registration with middleware around it; composed once until something changes."""
        found = self._composed.get(id(entry))
        if found is None:
            found = self._composed[id(entry)] = entry.within(self._table.layers)
        return found

    def get(self, name: str) -> Registration | None:
        """The handler or default of that name; None if there is none."""
        with self._lock:
            table = self._table
            found = table.entries.get(name)
            if found is None and table.default.registration.name == name:
                found = table.default
            return None if found is None else self._shown(found)

    def handler_of(self, event_type: str) -> object:
        """The instance or function that handles a type; that of the default if no other covers it.

        If the handler was given as a class or a factory, the instance is made now and handles the
        events of this process from then on.

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
        """Name -> types and patterns as the user gave them, aliases included."""
        with self._lock:
            return self._table.written()

    def allow_one_per_type(self) -> None:
        """Refuse registrations from now on that would give an event type a second handler."""
        self._one_per_type = True

    def check_factories(self) -> None:
        """Call the factories that do not say what they make.

        A factory that fails is ignored: what it needs may exist only when the first event comes.

        Raises:
            RegistrationInvalid: one returned something else than a handler, or a handler whose
                payload the events do not have.
        """
        with self._lock:
            entries = (*self._table.entries.values(), self._table.default)
        for entry in entries:
            if entry.source.is_untold:
                _try_factory(entry)

    def renewed(self, handler: object) -> Registration | None:
        """The registration of a handler, without middleware and with a new instance.

        None if it was not registered.
        """
        for entry in self._table.entries.values():
            if entry.source.given is handler:
                return entry.fresh().registration
        return None

    def as_registered(self, handler: object) -> tuple[tuple[str, ...], Options] | None:
        """Types and options that a handler, or the class of an instance, was registered with.

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
    except Exception as error:  # it is called again at the first event
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
"""Decorator that registers handlers in `registry`."""

use = registry.use
"""Puts a middleware around the handlers of `registry`."""
