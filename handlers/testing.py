"""Runs a handler in a test and reports what a worker would do next. Needs no Redis, no Feishu.

from flybridge.testing import run

def test_greets() -> None:
    result = run(Greet, "im.message.receive_v1", {"message.content": "hi"})
    assert result.succeeded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flybridge.handlers.errors import EventInvalid, RegistrationInvalid
from flybridge.handlers.event import Event
from flybridge.handlers.registering.source import source_of
from flybridge.handlers.registry import Registration, Registry
from flybridge.handlers.registry import registry as module_registry
from flybridge.handlers.samples import sample
from flybridge.handlers.trial.trials import BatchTrial, Trial, call, call_async
from flybridge.handlers.trial.verdicts import Result, too_old
from flybridge.handlers.types import matches

__all__ = ["Given", "Result", "run", "run_async", "run_batch", "run_batch_async"]

Given = str | Event | Mapping[str, Any] | bytes
"""An event type, which stands for its sample; an event; an envelope; or Feishu's JSON."""


def run(
    handler: object,
    event: Given,
    overrides: Mapping[str, Any] | None = None,
    *,
    attempt: int = 1,
    registry: Registry | None = None,
) -> Result:
    """Run a handler once, `def` or `async def`. What it raises is in the result.

    Args:
        handler: a class, instance, factory or function. A class or factory is called for each run.
            A handler decorated with `@handles` has the options given there.
        event: an event type or alias, for its sample; an `Event`; an envelope; or bytes.
        overrides: changes to the sample: values by dotted path into the `event` object.
        attempt: number of the attempt, 1 for the first; it is in `context.attempt`.
        registry: run the handler as registered there: with the middleware, on the one instance.

    Raises:
        RegistrationInvalid: no worker would run this handler for this event, or it takes batches.
        ValueError: there is no such sample, or the sample has no such path.
        RuntimeError: the handler is async, and so is the test; await `run_async` instead.
    """
    trial = _prepared(handler, event, overrides, attempt, registry)
    if isinstance(trial, Result):
        return trial
    return trial.judged(call(trial.handle, trial.registration.timeout))


async def run_async(
    handler: object,
    event: Given,
    overrides: Mapping[str, Any] | None = None,
    *,
    attempt: int = 1,
    registry: Registry | None = None,
) -> Result:
    """`run` for tests that are `async def`; a `def` handler runs in a thread.

    Raises:
        RegistrationInvalid, ValueError: as `run`.
    """
    trial = _prepared(handler, event, overrides, attempt, registry)
    if isinstance(trial, Result):
        return trial
    in_thread = not trial.registration.is_async
    settled = await call_async(trial.handle, trial.registration.timeout, in_thread=in_thread)
    return trial.judged(settled)


def run_batch(
    handler: object,
    events: Sequence[Given],
    *,
    attempts: int | Sequence[int] = 1,
    registry: Registry | None = None,
) -> list[Result]:
    """Run a batch handler once, with several events of one type.

    Args:
        handler, registry: as in `run`.
        events: as in `run`. The handler does not get those that cannot be read or are too old.
        attempts: number of the attempt, for all events or for each.

    Returns:
        The result of each event, in the order of the events.

    Raises:
        RegistrationInvalid, ValueError, RuntimeError: as `run`; or the events are not one batch.
    """
    batch = _batched(handler, events, attempts, registry)
    return batch.judged(call(batch.handle, batch.timeout)) if batch.trials else batch.results


async def run_batch_async(
    handler: object,
    events: Sequence[Given],
    *,
    attempts: int | Sequence[int] = 1,
    registry: Registry | None = None,
) -> list[Result]:
    """`run_batch` for tests that are `async def`.

    Raises:
        RegistrationInvalid, ValueError: as `run_batch`.
    """
    batch = _batched(handler, events, attempts, registry)
    if not batch.trials:
        return batch.results
    in_thread = not batch.trials[0].registration.is_async
    return batch.judged(await call_async(batch.handle, batch.timeout, in_thread=in_thread))


def _prepared(
    handler: object,
    given: Given,
    overrides: Mapping[str, Any] | None,
    attempt: int,
    registry: Registry | None,
) -> Trial | Result:
    """The attempt to run; or its result, if a worker would not call the handler."""
    event = _readable(given, overrides)
    if isinstance(event, Result):
        return event
    registration = _registration(handler, event.type, registry)
    if registration.batch is not None:
        raise RegistrationInvalid(f"{registration.name} takes batches; write: run_batch(…)")
    return too_old(registration, event) or Trial(registration, event, attempt)


def _batched(
    handler: object,
    given: Sequence[Given],
    attempts: int | Sequence[int],
    registry: Registry | None,
) -> BatchTrial:
    numbers = [attempts] * len(given) if isinstance(attempts, int) else attempts
    if len(numbers) != len(given):
        raise ValueError(
            f"{len(numbers)} attempts for {len(given)} events; give one number, or each"
        )
    events = [_readable(each, None) for each in given]
    types = {event.type for event in events if isinstance(event, Event)}
    if len(types) > 1:
        raise ValueError(f"a batch holds events of one type, not {' and '.join(sorted(types))}")
    if not types:
        return BatchTrial([event for event in events if isinstance(event, Result)])
    registration = _registration(handler, types.pop(), registry)
    if registration.batch is None:
        raise RegistrationInvalid(f"{registration.name} takes single events; write: run(…)")
    if len(given) > registration.batch.size:
        raise ValueError(f"{len(given)} events are more than batch={registration.batch}")
    return BatchTrial(
        [
            event
            if isinstance(event, Result)
            else too_old(registration, event) or Trial(registration, event, number)
            for event, number in zip(events, numbers, strict=True)
        ]
    )


def _readable(given: Given, overrides: Mapping[str, Any] | None) -> Event | Result:
    try:
        return _event(given, overrides)
    except EventInvalid as error:
        return Result(error=error, given_up="decode")


def _event(given: Given, overrides: Mapping[str, Any] | None) -> Event:
    if isinstance(given, str):
        return Event.from_envelope(sample(given, overrides=overrides))
    if overrides:
        raise ValueError("overrides change a sample; give the event's type with them")
    if isinstance(given, Event):
        return given
    return Event.from_json(given) if isinstance(given, bytes) else Event.from_envelope(given)


def _registration(handler: object, event_type: str, registry: Registry | None) -> Registration:
    """The registration of the handler; if there is none, the one it would have for this type."""
    if registry is not None:
        return _registered(handler, event_type, registry)
    own = source_of(handler).owner.event_types
    registration = module_registry.renewed(handler) or Registry().register(
        handler, *(() if own else (event_type,))
    )
    if not any(matches(pattern, event_type) for pattern in registration.patterns):
        raise RegistrationInvalid(
            f"{registration.name} is registered for {', '.join(registration.patterns)}; "
            f"no worker would run it for {event_type}"
        )
    return registration


def _registered(handler: object, event_type: str, registry: Registry) -> Registration:
    name = (registry.renewed(handler) or source_of(handler)).name
    for registration in registry.lookup(event_type):
        if registration.name == name:
            return registration
    raise RegistrationInvalid(
        f"{name} is not registered for {event_type} in the registry given; register it there, "
        "or give no registry"
    )
