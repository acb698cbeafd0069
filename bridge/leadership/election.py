"""The decisions of one candidate for the lease of an app, without I/O. Instants are in seconds.

The timing makes sure that at most one leader believes in itself, as long as the clocks run about
equally fast (client-go's bargain). A leader that was paused or cut off is fenced by its term, which
`publish.lua` compares with the stored one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flybridge.bridge.config.lease_timing import JITTER, Timing

LossReason = Literal["deadline", "taken", "renumbered", "fenced", "released"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of `lease.lua`: `term` is 0 while another holds the lease, for `left` seconds."""

    term: int
    holder: str
    left: float


@dataclass(frozen=True, slots=True)
class Acquired:
    """Standby → leading."""

    term: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Leading → standby.

    Attributes:
        reason: `deadline`: no renewal in time; `taken`: another holds the lease; `renumbered`: the
            record had run out or was gone, and the term is a new one; `fenced`: a publish was
            fenced; `released`: given back.
    """

    term: int
    reason: LossReason
    holder: str = ""


class Election:
    """One candidate, in standby until an answer says otherwise."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.term = 0
        """Of the present leadership; 0 in standby."""
        self.holder = ""
        """The holder in the last answer; empty when nobody held the lease."""
        self._valid_until = -math.inf

    def leads(self, now: float) -> bool:
        """Whether this candidate may act as the leader at this instant."""
        return self.term > 0 and now < self._valid_until

    def remaining(self, now: float) -> float:
        """Seconds until the leader has to step down; 0 in standby."""
        return max(0.0, self._valid_until - now) if self.term else 0.0

    def answered(self, answer: Answer, sent: float, now: float) -> Acquired | Lost | None:
        """Take an answer in; `sent` is the instant *before* the call was sent.

        Counted from there, our own deadline always passes before the lease does.
        """
        self.holder = answer.holder
        if self.term and answer.term != self.term:
            return self.lose("renumbered" if answer.term else "taken")
        if not answer.term:
            return None
        self._valid_until = max(self._valid_until, sent + self.timing.renew_deadline)
        if now >= self._valid_until:
            return self.expired(now)
        if self.term:
            return None
        self.term = answer.term
        return Acquired(self.term)

    def expired(self, now: float) -> Lost | None:
        """Step down if our own deadline has passed."""
        return self.lose("deadline") if self.term and now >= self._valid_until else None

    def lose(self, reason: LossReason) -> Lost:
        """End the leadership at once."""
        lost = Lost(self.term, reason, self.holder)
        self.term, self._valid_until = 0, -math.inf
        return lost

    def delay(self, chance: float, left: float = math.inf) -> float:
        """Seconds until the next call.

        Args:
            chance: from 0 to 1, for the jitter.
            left: seconds that are left of another's lease; a standby asks as soon as they are over.
        """
        jittered = self.timing.retry_period * (1 + JITTER * (2 * chance - 1))
        return jittered if self.term else min(jittered / 2, max(left, 0.0) + 0.05)
