"""The exceptions that handlers raise, and those that tell their authors of a mistake.

* :exc:`HandlerError`

  * :exc:`Retry`: the handler asks for another attempt
  * :exc:`Reject`: the handler gives the event up at once
  * :exc:`EventInvalid`: the data is no Feishu envelope

    * :exc:`PayloadInvalid`: the body does not fit the model that the handler names

  * :exc:`RegistrationInvalid`: a handler is registered wrongly; raised at import
  * :exc:`PluginBroken`: a module with handlers failed to import

Each message states what is wrong and ends with what to do about it.
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

MAX_RETRY_WAIT = 7 * 86_400.0
"""The longest wait in seconds that a handler may ask for: a week."""


class HandlerError(Exception):
    """Base of all exceptions here."""


class Retry(HandlerError):
    """Asks for another attempt later; raise it in a handler. This attempt counts.

    Args:
        after: seconds to wait, from 0 to a week; None: as long as the handler's `backoff` says.
        reason: text for the log and, when the attempts are used up, for the dead letter.

    Raises:
        ValueError: `after` is not such a number.
    """

    def __init__(self, after: float | None = None, reason: str = "") -> None:
        if after is not None and not _is_wait(after):
            raise ValueError(
                f"Retry(after={after!r}); give seconds, from 0 to {MAX_RETRY_WAIT:.0f}"
            )
        self.after = after
        self.reason = reason
        super().__init__(after, reason)

    def __str__(self) -> str:
        return self.reason or "the handler asked for another attempt"


def _is_wait(after: object) -> bool:
    if not isinstance(after, int | float) or isinstance(after, bool):
        return False
    return 0 <= after <= MAX_RETRY_WAIT


class Reject(HandlerError):
    """Gives the event up; raise it in a handler. The event becomes a dead letter at once."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class EventInvalid(HandlerError):
    """The data is neither a 1.0 nor a 2.0 envelope; `detail` says why."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class PayloadInvalid(EventInvalid):
    """The body does not fit the payload model that the handler names; `detail` lists the fields.

    The event becomes a dead letter (`rejected`), because a retry does not change the body. Replay
    it when the model is corrected.
    """


class RegistrationInvalid(HandlerError):
    """A handler is registered wrongly; the message says what to change."""


class PluginBroken(HandlerError):
    """A module with handlers failed to import.

    Args:
        module: dotted name.
        cause: what went wrong, and what to do about it.
        place: `file:line` of the code that failed; empty where no code is to blame.
    """

    def __init__(self, module: str, cause: str, place: str = "") -> None:
        self.module = module
        self.cause = cause
        self.place = place
        super().__init__(module, cause, place)

    def __str__(self) -> str:
        where = f" at {self.place}" if self.place else ""
        return f"handler module {self.module} failed to import{where}: {self.cause}"
