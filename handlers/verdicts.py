"""How an attempt in a test ended, and what a worker would make of it. It runs nothing.

The rules are those of `workers.failures`, which handlers may not import; the tests hold the two
against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from handlers.errors import EventInvalid, HandlerError, Reject, Retry
from handlers.event import Event
from handlers.registration import Registration

Settled = tuple[Any, BaseException | None]
"""What a handler returned, and what it raised."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one attempt at one event ended."""

    value: Any = None
    """What `handle` returned; workers ignore it."""
    error: BaseException | None = None
    """What it raised, or why it did not run; None after success."""
    retry_after: float | None = None
    """Seconds until the next attempt; None when there is none. Where the handler named none it is
    the longest wait: workers take from half of it to all of it, at random."""
    given_up: Literal["", "attempts", "age", "rejected", "decode"] = ""
    """The reason that the dead letter would have; empty when there would be none."""

    @property
    def succeeded(self) -> bool:
        return self.error is None

    @property
    def rejected(self) -> bool:
        """Whether it was given up for good: by `Reject`, or a body of another shape."""
        return self.given_up == "rejected"

    def raise_for_failure(self) -> Self:
        """Raise `error` if there is one, with the traceback of where it came from."""
        if self.error is not None:
            raise self.error
        return self


def judge(settled: Settled, registration: Registration, event: Event, attempt: int) -> Result:
    """What a worker would make of a call that ended."""
    value, error = settled
    if error is None:
        return Result(value=value)
    # EventInvalid: no retry will change an envelope.
    if isinstance(error, Reject | EventInvalid):
        return Result(error=error, given_up="rejected")
    if attempt >= registration.max_attempts:
        return Result(error=error, given_up="attempts")
    after = _wait(error, registration, attempt)
    if _is_too_old(registration, _age(event) + after):
        return Result(error=error, given_up="age")
    return Result(error=error, retry_after=after)


def split(settled: Settled, count: int, handler: str) -> list[Settled]:
    """How each event of a batch ended, by what its handler returned or raised for all."""
    value, error = settled
    if error is not None or value is None:
        return [(None, error)] * count
    if isinstance(value, list | tuple) and len(value) == count:
        return [_told(each) for each in value]
    what = f"{len(value)} of them" if isinstance(value, list | tuple) else type(value).__name__
    mistake = TypeError(
        f"{handler} returned {what} for {count} events; return None, or a list with an exception "
        "in the place of each event that failed"
    )
    return [(None, mistake)] * count


def _told(of_event: Any) -> Settled:
    if isinstance(of_event, type) and issubclass(of_event, BaseException):
        name = of_event.__name__
        return None, TypeError(f"the class {name} was returned; return an instance of it")
    return (None, of_event) if isinstance(of_event, BaseException) else (of_event, None)


def too_old(registration: Registration, event: Event) -> Result | None:
    """The result of an event that comes too late for its handler; None while it is young."""
    age = _age(event)
    if not _is_too_old(registration, age):
        return None
    error = HandlerError(f"{age:.0f} s old; max_age is {registration.max_age:g} s")
    return Result(error=error, given_up="age")


def _wait(error: BaseException, registration: Registration, attempt: int) -> float:
    if isinstance(error, Retry) and error.after is not None:
        return error.after
    # The cap keeps the power inside a float; backoff_max comes far earlier.
    return min(registration.backoff_max, registration.backoff * 2.0 ** min(attempt - 1, 64))


def _age(event: Event) -> float:
    """Seconds since the event was created; 0 when nobody knows."""
    created = event.created_at
    return max(0.0, (datetime.now(UTC) - created).total_seconds()) if created else 0.0


def _is_too_old(registration: Registration, age: float) -> bool:
    return registration.max_age is not None and age > registration.max_age
