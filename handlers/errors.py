"""What handlers raise, and what is raised at authors of handlers. No error of the bridge is here.

* :exc:`HandlerError`

  * :exc:`Retry`: a handler asks to run again later
  * :exc:`Reject`: a handler gives the event up at once
  * :exc:`EventInvalid`: not a Feishu envelope

    * :exc:`PayloadInvalid`: the body does not fit the model that a handler names

  * :exc:`RegistrationInvalid`: a mistake in registering a handler; fails at import
  * :exc:`PluginBroken`: a module with handlers failed to import

A message states the fact and ends with what to do about it.
"""

from __future__ import annotations

__all__ = [
    "EventInvalid",
    "HandlerError",
    "PayloadInvalid",
    "PluginBroken",
    "RegistrationInvalid",
    "Reject",
    "Retry",
]

LONGEST_RETRY = 7 * 86_400.0
"""Seconds that a handler may ask to wait; a week."""


class HandlerError(Exception):
    """Base of all."""


class Retry(HandlerError):
    """Raise it to run the handler again later; it counts as an attempt.

    Args:
        after: seconds to wait, from 0 to a week; None takes the handler's own backoff.
        reason: for the log and, once attempts are used up, the dead letter.

    Raises:
        ValueError: `after` is no such number.
    """

    def __init__(self, after: float | None = None, reason: str = "") -> None:
        if after is not None and not _is_wait(after):
            raise ValueError(f"Retry(after={after!r}); give seconds, from 0 to {LONGEST_RETRY:.0f}")
        self.after = after
        self.reason = reason
        super().__init__(after, reason)

    def __str__(self) -> str:
        return self.reason or "the handler asked for another attempt"


def _is_wait(after: object) -> bool:
    if not isinstance(after, int | float) or isinstance(after, bool):
        return False
    return 0 <= after <= LONGEST_RETRY


class Reject(HandlerError):
    """Raise it to give the event up: no retry would help, it becomes a dead letter."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class EventInvalid(HandlerError):
    """Not a 1.0 or 2.0 envelope; `detail` says why."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class PayloadInvalid(EventInvalid):
    """The body does not fit the payload model that a handler names; `detail` lists the fields.

    The event becomes a dead letter (`rejected`), for no retry changes a body. It can be replayed
    when the model has been mended.
    """


class RegistrationInvalid(HandlerError):
    """A handler cannot be registered so; the sentence says what to change."""


class PluginBroken(HandlerError):
    """A module with handlers failed to import.

    Args:
        module: its dotted name.
        cause: what went wrong, and what to do about it.
        place: `file:line` of the code that failed; empty if none did.
    """

    def __init__(self, module: str, cause: str, place: str = "") -> None:
        self.module = module
        self.cause = cause
        self.place = place
        super().__init__(module, cause, place)

    def __str__(self) -> str:
        where = f" at {self.place}" if self.place else ""
        return f"handler module {self.module} failed to import{where}: {self.cause}"
