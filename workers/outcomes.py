"""How one attempt at an event ended. Pure data; what becomes of it in Redis is the guard's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["done", "retry", "dead"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A handler that was given up."""

    handler: str
    """Empty when no handler is to blame: the envelope, or the process that died."""
    reason: str
    """`attempts`, `age`, `rejected`, `crash_loop`, `decode` or `revoked`."""
    error: str
    """"Type: text", 1 KiB at most."""


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
    crashed: bool = False
    """The attempt ended because its process died, and nobody knows which handler did that."""

    returned: bool = False
    """No handler has begun, and that is not the event's fault: the attempt does not count."""

    @property
    def verdict(self) -> Verdict:
        """A retry comes before a dead letter: other handlers may still succeed."""
        if self.retry_after is not None:
            return "retry"
        return "dead" if self.failed else "done"
