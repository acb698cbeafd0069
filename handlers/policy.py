"""The rules of attempts: what follows when one fails, and how each event of a batch has ended.

Workers apply them to real events, `flybridge.handlers.testing` to those of a test. Nothing runs
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flybridge.handlers.errors import EventInvalid, Reject, Retry

if TYPE_CHECKING:
    from flybridge.handlers.registering.registration import Registration


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a failed attempt: another one, or the end."""

    retry_after: float | None = None
    """Seconds until the next attempt; None when there is none."""
    given_up: Literal["", "rejected", "attempts", "age"] = ""
    """The reason of the dead letter; empty when there is another attempt."""


def decide(
    error: BaseException,
    registration: Registration,
    attempt: int,
    age: float,
    *,
    spread: float = 1.0,
) -> Decision:
    """What follows when a handler has failed with an error.

    Args:
        attempt: 1 for the first.
        age: seconds since the event was created.
        spread: factor for the wait of the handler's backoff; a wait that `Retry` names stays.
    """
    # EventInvalid: no retry changes an envelope or a body.
    if isinstance(error, Reject | EventInvalid):
        return Decision(given_up="rejected")
    if attempt >= registration.max_attempts:
        return Decision(given_up="attempts")
    if isinstance(error, Retry) and error.after is not None:
        wait = error.after
    else:
        wait = spread * longest_wait(registration, attempt)
    if is_too_old(registration, age + wait):
        return Decision(given_up="age")
    return Decision(retry_after=wait)


def longest_wait(registration: Registration, attempt: int) -> float:
    """Seconds after a failed attempt: `backoff`, doubled by each attempt, up to `backoff_max`."""
    # The cap on the exponent keeps the power inside a float; backoff_max comes far earlier.
    return min(registration.backoff_max, registration.backoff * 2.0 ** min(attempt - 1, 64))


def is_too_old(registration: Registration, age: float) -> bool:
    """Whether a handler must not begin with an event that was created `age` seconds ago."""
    return registration.max_age is not None and age > registration.max_age


def too_old_text(registration: Registration, age: float) -> str:
    """The sentence for an event that `is_too_old`."""
    return f"{age:.0f} s old; max_age is {registration.max_age:g} s"


def batch_results(returned: Any, count: int, handler: str) -> list[Any]:
    """The result of each event of a batch: an exception for a failure, anything else for a success.

    Args:
        returned: what the batch handler returned: None, or a list with one item for each event.
        count: events in the batch.
        handler: name of the registration, for the errors.
    """
    if returned is None:
        return [None] * count
    if isinstance(returned, list | tuple) and len(returned) == count:
        return [_batch_result(item) for item in returned]
    is_list = isinstance(returned, list | tuple)
    what = f"{len(returned)} of them" if is_list else type(returned).__name__
    mistake = TypeError(
        f"{handler} returned {what} for {count} events; return None, or a list with an exception "
        "in the place of each event that failed"
    )
    return [mistake] * count


def _batch_result(item: Any) -> Any:
    if isinstance(item, type) and issubclass(item, BaseException):
        return TypeError(f"the class {item.__name__} was returned; return an instance of it")
    if isinstance(item, KeyboardInterrupt | SystemExit):
        # Raised, it tells the process to exit; returned, it does not.
        return RuntimeError(f"{item!r} was returned")
    return item
