"""Gives a handler the payload that its annotation names, if its events can have that payload.

With `Event[MessageReceived]` a handler gets the payload that all handlers of the event share. For a
model of the user's own the body is read again, into a copy of the event.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from flybridge.handlers.base import Run
from flybridge.handlers.batch import BatchContext
from flybridge.handlers.errors import PayloadInvalid, RegistrationInvalid
from flybridge.handlers.event import Event, with_payload
from flybridge.handlers.policy import batch_results
from flybridge.handlers.registering.annotations import Models
from flybridge.handlers.types import KNOWN_TYPES, matches


def check_payload(models: Models, patterns: Iterable[str], where: str) -> None:
    """Refuse models that contradict what is known of the event types.

    Args:
        models: named by the handler's annotation; if there are none, every type is accepted.
        patterns: the types and patterns of the registration, aliases resolved.
        where: `module:line` of the handler.

    Raises:
        RegistrationInvalid: an event type has another payload.
    """
    if not models:
        return
    for pattern in patterns:
        for event_type in sorted(KNOWN_TYPES) if "*" in pattern else [pattern]:
            if matches(pattern, event_type):
                _refuse_contradiction(models, event_type, f"{where}: the handler of {pattern}")


def giving_payload(run: Run, models: Models, patterns: Iterable[str]) -> Run:
    """A handler that gets a payload of one of these models.

    It is `run` itself, without extra cost, if the payloads of all its event types are such already.
    """
    if not models or all("*" not in each and _is_shared(models, each) for each in patterns):
        return run
    return reading(run, models)


def reading(run: Run, models: Models) -> Run:
    """A handler that gets each event, or each event of a batch, with a payload of these models."""

    def run_reading(given: Any, context: Any) -> Any:
        if isinstance(given, Event):
            return run(_read(given, models), context)
        return _run_batch(run, given, context, models)

    return run_reading


def _read(event: Event, models: Models) -> Event:
    from flybridge.handlers.payloads import parse_as

    if _is_shared(models, event.type):
        return event
    return with_payload(event, parse_as(models, event.type, event.body))


@lru_cache(maxsize=1024)  # a sender can invent any number of types
def _is_shared(models: Models, event_type: str) -> bool:
    """Whether the payload that all handlers of the type share is one of these models.

    Raises:
        RegistrationInvalid: as `check_payload`, which could not check what a factory without a
            return annotation makes.
    """
    from flybridge.handlers.payloads import payload_model

    if issubclass(payload_model(event_type), models):
        return True
    _refuse_contradiction(models, event_type, f"the handler of {event_type}")
    return False


def _run_batch(run: Run, events: Sequence[Event], context: BatchContext, models: Models) -> Any:
    """Call a batch handler with the events whose bodies fit; each other event fails alone."""
    read = [_read_or_error(event, models) for event in events]
    fitting = [each for each in read if isinstance(each, Event)]
    run_batch: Any = run  # a batch handler takes other arguments
    if len(fitting) == len(read):
        return run_batch(fitting, context)
    if not fitting:
        return read
    attempts = tuple(
        attempt
        for attempt, each in zip(context.attempts, read, strict=True)
        if isinstance(each, Event)
    )
    returned = run_batch(fitting, replace(context, attempts=attempts))
    if inspect.isawaitable(returned):
        return _merged_later(returned, read, context.handler)
    return _merged(returned, read, context.handler)


def _read_or_error(event: Event, models: Models) -> Event | PayloadInvalid:
    try:
        return _read(event, models)
    except PayloadInvalid as error:
        return error


async def _merged_later(
    returned: Awaitable[Any], read: Sequence[Event | PayloadInvalid], handler: str
) -> list[Any]:
    return _merged(await returned, read, handler)


def _merged(returned: Any, read: Sequence[Event | PayloadInvalid], handler: str) -> list[Any]:
    """Put the handler's results and the events that it did not get into the order of the batch."""
    count = sum(isinstance(each, Event) for each in read)
    results = iter(batch_results(returned, count, handler))
    return [next(results) if isinstance(each, Event) else each for each in read]


def _refuse_contradiction(models: Models, event_type: str, who: str) -> None:
    from flybridge.handlers.payloads import Payload, names, payload_model

    model = payload_model(event_type)
    if issubclass(model, models) or not all(_contradicts(each, event_type) for each in models):
        return
    if model is Payload:
        has, cure = "no model in flybridge", "Event, or Event[…] with a model of your own"
    else:
        has, cure = f"the payload {model.__name__}", f"Event[{model.__name__}]"
    types = _types_of(models)
    instead = f", or register it for {types}" if types else ""
    raise RegistrationInvalid(
        f"{who} takes Event[{names(models)}], but {event_type} has {has}; annotate {cure}{instead}"
    )


def _contradicts(model: type[Any], event_type: str) -> bool:
    """Whether a model is, or extends, the model that Flybridge has for other event types.

    A model of the user's own fits every type. Types that Feishu is not known to send accept every
    model.
    """
    from flybridge.handlers.payloads import Payload, payload_model

    of_type = payload_model(event_type)
    if of_type is Payload:
        return _is_ours(model) and event_type in KNOWN_TYPES
    ours = next((each for each in model.__mro__ if _is_ours(each)), None)
    return ours is not None and not issubclass(of_type, ours)


def _is_ours(model: type[Any]) -> bool:
    """Whether it is a model of Flybridge for certain bodies, and not a base of all models."""
    from flybridge.handlers.payloads import Payload, base

    package = base.__name__.rpartition(".")[0]
    is_base = issubclass(Payload, model)
    return model.__module__.startswith(f"{package}.") and not is_base


def _types_of(models: Models) -> str:
    from flybridge.handlers.payloads import MODELS

    return " or ".join(name for name, model in MODELS.items() if issubclass(model, models))
