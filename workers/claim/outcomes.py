"""How one attempt at an event ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["done", "retry", "dead", "return"]


LOOK_AGAIN = 2.0
"""Seconds after which an event that is left to other workers may be claimed again."""

MAX_ERROR = 1024
"""Bytes kept of an error's text."""

UNHANDLED = "unhandled"
"""The reason of a dead letter that no worker of the group had a handler for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A handler that was given up."""

    handler: str
    """Empty when no handler is to blame: the envelope, or the process that died."""
    reason: str
    """`attempts`, `age`, `rejected`, `crash_loop`, `decode`, `unhandled` or `revoked`."""
    error: str
    """"Type: text", 1 KiB at most."""


@dataclass(frozen=True, slots=True)
class Later:
    """A handler that wants another attempt on its own time, for others share its event."""

    handler: str
    made: int
    """Attempts so far."""
    after: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the handlers of one event came to in one attempt."""

    finished: tuple[str, ...] = ()
    """Handlers that succeeded in this attempt."""
    failed: tuple[Failure, ...] = ()
    """Handlers given up, in this attempt or an earlier one."""
    retry_after: float | None = None
    """Seconds until the next attempt; None when nothing is left to try."""
    error: str = ""
    """Why another attempt is needed."""
    later: tuple[Later, ...] = ()
    """The handlers that want one, where several share the event; those that were not called in this
    attempt keep the time that they had asked for."""
    crashed: bool = False
    """The attempt ended because its process died; which handler did that is unknown."""

    returned: bool = False
    """No handler has begun, for no fault of the event: the attempt does not count."""

    @classmethod
    def unhandled(cls, event_type: str, told: str) -> Outcome:
        """The outcome of an event whose type has no handler where it was to run.

        Args:
            event_type: as its envelope says.
            told: as its entry says, by which it was sent here; empty for the same.
        """
        if told in ("", event_type):
            return cls(retry_after=LOOK_AGAIN, error="no handler here", returned=True)
        error = f"its entry has the type {told[:128]!r}, its envelope {event_type[:128]!r}"
        return cls(failed=(Failure("", UNHANDLED, error),))

    @property
    def verdict(self) -> Verdict:
        """A retry comes before a dead letter: other handlers may still succeed. `return` undoes the
        claim."""
        if self.returned:
            return "return"
        if self.retry_after is not None:
            return "retry"
        return "dead" if self.failed else "done"
