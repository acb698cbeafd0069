"""A registered handler: what runs, and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flybridge.handlers.base import Run
from flybridge.handlers.batch import Batch
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.middleware import Layer, around
from flybridge.handlers.registering.key_paths import check_path
from flybridge.handlers.registering.options import Options, complete
from flybridge.handlers.registering.patterns import narrow, resolve
from flybridge.handlers.registering.payload_fit import check_payload, giving_payload
from flybridge.handlers.registering.source import Source, source_of
from flybridge.handlers.types import STATUS_OF_ALIAS


@dataclass(frozen=True, slots=True)
class Registration:
    """A handler with its options, as workers run it."""

    name: str
    """Unique, and the same in every process: a success is recorded under this name."""
    patterns: tuple[str, ...]
    """Event types and patterns, aliases resolved."""
    queue: str | None
    max_attempts: int
    timeout: float
    backoff: float
    backoff_max: float
    max_age: float | None
    rate_limit: str | float | None
    concurrency: int | None
    batch: Batch | None
    ordered_by: str | None
    dedup_by: str | None
    run: Run
    """Returns an awaitable for async handlers; it may do so even if `is_async` is False."""
    is_async: bool
    where: str
    """`module:line`."""
    stands_for_none: bool = False
    """Whether it means that no handler is here: the event is left to other workers, or becomes a
    dead letter."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registration as the registry keeps it: what the user gave, and what came of it."""

    source: Source
    patterns: tuple[str, ...]
    """As the user gave them, aliases included."""
    options: Options
    registration: Registration
    """Without middleware."""
    origin: str = ""
    """The module whose import registered it; empty if none did."""

    def within(self, layers: Sequence[Layer]) -> Registration:
        """The registration with middleware around the handler."""
        if not layers:
            return self.registration
        run = giving_payload(self.source.run, self.source.models, self.registration.patterns)
        run, is_async = around(run, layers, is_async=self.source.is_async)
        return replace(self.registration, run=narrow(run, self.patterns), is_async=is_async)

    def standing_for_none(self, *, stands: bool) -> Entry:
        """A copy with this value of `Registration.stands_for_none`."""
        return replace(self, registration=replace(self.registration, stands_for_none=stands))

    def fresh(self) -> Entry:
        """The same handler, whose instance is not made yet."""
        source = source_of(self.source.given)
        return entry_of(source, self.patterns, self.options, self.origin)

    def is_of(self, module: str) -> bool:
        """Whether its code is in the module or package, or the import of that registered it."""
        home = self.source.name.partition(":")[0]
        return self.origin == module or home == module or home.startswith(f"{module}.")


def entry_of(
    source: Source, patterns: tuple[str, ...], options: Options, origin: str = ""
) -> Entry:
    """Complete and check a registration.

    Raises:
        RegistrationInvalid: an option is unknown or impossible, or the payload that the handler
            names is not that of its events.
    """
    resolved = resolve(patterns)
    check_payload(source.models, resolved, source.where)
    registration = Registration(
        name=options.get("name", source.name),
        patterns=resolved,
        run=narrow(giving_payload(source.run, source.models, resolved), patterns),
        is_async=source.is_async,
        where=source.where,
        **complete(options, source.owner, source.where),
    )
    for option, path in (
        ("ordered_by", registration.ordered_by),
        ("dedup_by", registration.dedup_by),
    ):
        if path:
            check_path(option, path, registration.patterns, source.where)
    narrowed = [pattern for pattern in patterns if pattern in STATUS_OF_ALIAS]
    if narrowed and (registration.batch or registration.dedup_by):
        # Events of another status would fill its batches and use up its business keys.
        what = "a batch handler" if registration.batch else "a handler with dedup_by"
        raise RegistrationInvalid(
            f"{source.where}: {what} cannot be registered for {narrowed[0]}, which stands "
            f"for some events of {resolve((narrowed[0],))[0]} only; register it for that type, and "
            "check body['status'] in the handler"
        )
    return Entry(source, patterns, options, registration, origin)
