"""Builds a service: a bridge and, unless told otherwise, a worker for its events in one process."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, Unpack

from pydantic import Field

from flybridge.bridge.config import files
from flybridge.bridge.config.dotnet_names import translate
from flybridge.bridge.config.files import SECTION
from flybridge.bridge.config.layers import Written
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.config.types import Switch
from flybridge.bridge.errors import SettingsInvalid
from flybridge.bridge.service import Service
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.middleware import Middleware
from flybridge.handlers.registering.options import Options
from flybridge.handlers.registering.overlap import shared_types
from flybridge.handlers.registry import Registry
from flybridge.handlers.registry import registry as decorated
from flybridge.workers.inline import InlineWorker
from flybridge.workers.routes.routing import Routing

__all__ = [
    "Builder",
    "Service",
    "ServiceSettings",
    "service_from",
    "service_with_multi_handler",
    "service_with_single_handler",
]


class ServiceSettings(BridgeSettings):
    """The settings of a service: those of a bridge, and whether handlers share types."""

    multi_handler: Switch = Field(
        False, description="give true to let several handlers share an event type, else false"
    )


class Builder:
    """Collects settings and handlers, and builds one service of them.

        Builder().configure_from("settings.yaml").add_handler(Greet).build().run()

    Later configuration wins over earlier. All of it wins over the environment (`FLYBRIDGE_*`),
    which wins over `.env` and the defaults.

    A mistake that can be seen at once raises at once. `build` reports all others together. Every
    method but `build` returns the builder.
    """

    def __init__(self) -> None:
        self._configured: list[tuple[Written, ...]] = []
        self._registry = Registry()
        self._has_default = False
        self._runs_handlers = True
        self._built = False

    def configure_from(
        self, source: str | Path | Mapping[str, Any] | None, section: str = SECTION
    ) -> Self:
        """Take the settings in a section of a file or a mapping.

        Args:
            source: a .toml, .json, .yaml or .yml file, or a mapping; None: only the environment
                counts.
            section: `Production:WebSocket` is the section `WebSocket` in `Production`; '' is the
                top. A section `WebSocket` inside the section counts as part of it. App id and
                secret may also stand in the sections around it.

        Raises:
            SettingsInvalid: no such file or section, or an option that does not exist.
        """
        self._refuse_if_built()
        return self._take(() if source is None else files.read(source, section))

    def configure(self, **options: Any) -> Self:
        """Take settings: `app_id="cli_…"`, `reconnect_delay_ms=3000`; None counts as not given.

        Args:
            options: fields of `ServiceSettings`, or options of the C# service, in any spelling.

        Raises:
            SettingsInvalid: an option that does not exist.
        """
        return self._take(tuple(Written(name, value, name) for name, value in options.items()))

    def use_multi_handler(self, *, parallel: bool | None = None) -> Self:
        """Allow several handlers for an event type; otherwise two are a mistake.

        Args:
            parallel: True: run them side by side (the default). False: one after the other, in the
                order in which they were added. None: as configured.
        """
        return self.configure(multi_handler=True, parallel_handlers=parallel)

    def add_handler(self, handler: object, *event_types: str, **options: Unpack[Options]) -> Self:
        """Register a handler.

        Args:
            handler: a Handler subclass or instance, a function without parameters that returns one,
                or a function(event, context).
            event_types: types or patterns; none: those given to `@handles`, else its `event_types`.
            options: as for `@handles`; they win over those given there.

        Raises:
            RegistrationInvalid: it is no handler, has no types, or an option is wrong.
        """
        self._refuse_if_built()
        types, decorations = decorated.as_registered(handler) or ((), {})
        chosen: Any = {**decorations, **options}
        self._registry.register(handler, *(event_types or types), **chosen)
        return self

    def set_default_handler(self, handler: object, **options: Unpack[Options]) -> Self:
        """Register a handler for all types that no other handler covers.

        Raises:
            RegistrationInvalid: it is no handler, or an option is wrong.
        """
        self._refuse_if_built()
        self._registry.set_default(handler, **options)
        self._has_default = True
        return self

    def use(self, middleware: Middleware | type[Middleware]) -> Self:
        """Run a middleware around every handler, inside the middlewares added before.

        Raises:
            RegistrationInvalid: it is no middleware.
        """
        self._refuse_if_built()
        self._registry.use(middleware)
        return self

    def apply(self, change: Callable[[Self], object]) -> Self:
        """Call `change(builder)`, for configuration that depends on conditions.

        Raises:
            SettingsInvalid: it is no plain function.
        """
        self._refuse_if_built()
        if not callable(change) or inspect.iscoroutinefunction(change):
            raise SettingsInvalid([f"apply({change!r}) changes nothing; give a def(builder)."])
        change(self)
        return self

    def bridge_only(self) -> Self:
        """Run no handlers in this process; `flybridge worker` processes do."""
        self._refuse_if_built()
        self._runs_handlers = False
        return self

    def build(self) -> Service:
        """Build the service, without starting it. The builder cannot be used any more.

        Raises:
            SettingsInvalid: every problem of settings and handlers.
        """
        self._refuse_if_built()
        problems = self._problems_of_handlers()
        try:
            settings = ServiceSettings.load(configured=self._configured)
        except SettingsInvalid as error:
            raise SettingsInvalid([*error.problems, *problems]) from None
        if not settings.multi_handler:
            problems += shared_types(self._registry.written())
        if problems:
            raise SettingsInvalid(problems)
        if not settings.multi_handler:
            self._registry.allow_one_per_type()
        self._built = True
        worker = InlineWorker(settings, self._registry) if self._runs_handlers else None
        return Service(settings, self._registry, worker)

    def _take(self, written: tuple[Written, ...]) -> Self:
        self._refuse_if_built()
        layer = translate(written, ServiceSettings.model_fields)
        problems = list(layer.unknown)
        if "handlers" in layer.given:
            name = layer.given["handlers"].written.shown
            problems.append(f"{name} is for flybridge worker; here add_handler(…) adds handlers.")
        if problems:
            raise SettingsInvalid(problems)
        self._configured.append(written)
        return self

    def _refuse_if_built(self) -> None:
        if self._built:
            raise SettingsInvalid(["This builder has built its service; make another Builder()."])

    def _problems_of_handlers(self) -> list[str]:
        has_handlers = bool(self._registry.list()) or self._has_default
        if has_handlers and not self._runs_handlers:
            return ["bridge_only() runs no handlers, and some were added; leave out one of both."]
        if not has_handlers and self._runs_handlers:
            return [
                "No handler was added, so every event would become a dead letter; "
                "add_handler(…), set_default_handler(…), or bridge_only()."
            ]
        try:
            self._registry.check_factories()
            Routing.of(self._registry)
        except RegistrationInvalid as error:
            return [str(error)]
        return []


def service_with_single_handler(handler: object, *event_types: str, **options: Any) -> Service:
    """A service with one handler. Types as in `add_handler`, options as in `configure`.

    Raises:
        SettingsInvalid, RegistrationInvalid: see `Builder`.
    """
    return Builder().configure(**options).add_handler(handler, *event_types).build()


def service_with_multi_handler(*handlers: object, **options: Any) -> Service:
    """A service whose handlers may share event types; options as in `configure`.

    Raises:
        SettingsInvalid, RegistrationInvalid: see `Builder`.
    """
    builder = Builder().configure(**options).use_multi_handler()
    for handler in handlers:
        builder.add_handler(handler)
    return builder.build()


def service_from(
    source: str | Path | Mapping[str, Any],
    section: str = SECTION,
    handlers: Iterable[object] = (),
) -> Service:
    """A service with the settings of a file or a mapping; without handlers it is only a bridge.

    Raises:
        SettingsInvalid, RegistrationInvalid: see `Builder`.
    """
    builder = Builder().configure_from(source, section)
    if isinstance(handlers, str) or not isinstance(handlers, Iterable):
        raise SettingsInvalid([f"handlers={handlers!r} is no list of handlers; give [handler, …]."])
    given = tuple(handlers)
    for handler in given:
        builder.add_handler(handler)
    return (builder if given else builder.bridge_only()).build()
