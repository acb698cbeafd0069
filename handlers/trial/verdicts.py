"""The result of an attempt in a test: how it ended, and what a worker would do next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from flybridge.handlers import policy
from flybridge.handlers.errors import HandlerError
from flybridge.handlers.event import Event
from flybridge.handlers.registering.registration import Registration

Settled = tuple[Any, BaseException | None]
"""What a handler returned, and what it raised."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one attempt at one event ended."""

    value: Any = None
    """What `handle` returned. Workers ignore it."""
    error: BaseException | None = None
    """What it raised, or why it did not run; None after a success."""
    retry_after: float | None = None
    """Seconds until the next attempt; None if there is none. A wait of the handler's backoff is the
    longest one: workers wait at random between half of it and all of it."""
    given_up: Literal["", "attempts", "age", "rejected", "decode"] = ""
    """The reason of the dead letter; empty if there would be none."""

    @property
    def succeeded(self) -> bool:
        return self.error is None

    @property
    def rejected(self) -> bool:
        """Whether the event was given up at once: by `Reject`, or because its body does not fit."""
        return self.given_up == "rejected"

    def raise_for_failure(self) -> Self:
        """Raise `error` if there is one, with its traceback."""
        if self.error is not None:
            raise self.error
        return self


def judge(settled: Settled, registration: Registration, event: Event, attempt: int) -> Result:
    """What a worker would do after a call that ended so."""
    value, error = settled
    if error is None:
        return Result(value=value)
    decision = policy.decide(error, registration, attempt, _age(event))
    return Result(error=error, retry_after=decision.retry_after, given_up=decision.given_up)


def split(settled: Settled, count: int, handler: str) -> list[Settled]:
    """How each event of a batch ended, from what the handler returned or raised."""
    value, error = settled
    if error is not None:
        return [(None, error)] * count
    results = policy.batch_results(value, count, handler)
    return [(None, each) if isinstance(each, BaseException) else (each, None) for each in results]


def too_old(registration: Registration, event: Event) -> Result | None:
    """The result of an event that is older than `max_age`; None if it is not."""
    age = _age(event)
    if not policy.is_too_old(registration, age):
        return None
    return Result(error=HandlerError(policy.too_old_text(registration, age)), given_up="age")


def _age(event: Event) -> float:
    """Seconds since the event was created; 0 if that is not known."""
    created = event.created_at
    return max(0.0, (datetime.now(UTC) - created).total_seconds()) if created else 0.0
