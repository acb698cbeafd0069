"""Settles what ended: gathers the outcomes of attempts, and has the guard record them in bulk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from flybridge.handlers.loggers import get_logger
from flybridge.workers.claim.claims import Run, Settlement
from flybridge.workers.claim.outcomes import UNHANDLED, Outcome
from flybridge.workers.group.unhandled import Burials

if TYPE_CHECKING:
    from flybridge.workers.backlog.waiting import Waiting
    from flybridge.workers.claim.guard import Guard
    from flybridge.workers.intake.held import Held
    from flybridge.workers.intake.outages import Outages
    from flybridge.workers.intake.spans import IntakeSpans

log = get_logger(__name__)

GATHER_DELAY = 0.005
"""Seconds to gather outcomes; settled one by one they would cost ten times as much."""

CUT_OFF = Outcome(retry_after=2.0, error="the worker was stopped in the middle")
"""The end of an attempt that a stop cuts off. Its handler may run on in a thread until the process
has ended, so the retry waits a moment."""

CUT_SHORT = Outcome(
    retry_after=1.0, error="an operator ended the worker in the middle", returned=True
)
"""The end of an attempt that an operator cuts off: it does not count, and is retried when the
process has ended."""

GATHER_DELAY_IN_LINE = 0.001
"""Seconds to gather outcomes while others wait in line behind one of them."""


class Settler:
    """Takes outcomes from any thread, and settles them in one thread.

    Args:
        waiting: may hold suspects, which wait for the settlement of what ran beside them.
        wake: has the dispatcher look for what may start; called when a suspect may.
        complete: set by `close`; shared with those that ask Redis, who then wait no longer.
    """

    def __init__(
        self,
        guard: Guard,
        held: Held,
        outages: Outages,
        spans: IntakeSpans,
        waiting: Waiting,
        wake: Callable[[], None],
        complete: threading.Event,
    ) -> None:
        self._guard = guard
        self._held = held
        self._outages = outages
        self._spans = spans
        self._suspects = waiting.suspects
        self._wake = wake
        self._complete = complete
        self._burials = Burials(guard.dead_letters)
        self._ended: deque[Settlement] = deque()
        self._settling = 0
        self._cut_off = CUT_OFF
        self._any_ended = threading.Event()
        self._hurry = threading.Event()
        self._lines_moved = threading.Event()
        self.settled = 0
        """Attempts, since the start."""

    @property
    def unsettled(self) -> int:
        """Attempts that ended and are not recorded in Redis yet."""
        return len(self._ended) + self._settling

    @property
    def is_complete(self) -> bool:
        """It was closed, and all that ended is settled."""
        return self._complete.is_set() and not self._ended

    def end(self, run: Run, outcome: Outcome) -> None:
        """Settle an attempt that has ended; callable from any thread."""
        self.add([Settlement(run, outcome)])

    def give_back(self, runs: Iterable[Run], after: float = 0.0) -> None:
        """Leave events whose handlers never started to any worker, in so many seconds."""
        returned = Outcome(retry_after=after, returned=True)
        self.add([Settlement(run, returned) for run in runs])

    def add(self, settlements: Iterable[Settlement]) -> None:
        """Settle attempts that have ended; callable from any thread."""
        ended = list(settlements)
        self._ended.extend(ended)
        if any(each.run.pending.line for each in ended):
            self._hurry.set()
        self._any_ended.set()

    def lines_moved(self) -> None:
        """Have the next of a line fetched, for its first has gone; callable from any thread."""
        self._lines_moved.set()
        self._hurry.set()
        self._any_ended.set()

    def close(self, cut_off: Outcome = CUT_OFF) -> None:
        """Settle the rest, for nothing ends from now on.

        Args:
            cut_off: how what is still held has ended.
        """
        self._cut_off = cut_off
        self._complete.set()
        self._hurry.set()
        self._any_ended.set()

    def settle_next(self) -> bool:
        """Wait until attempts have ended, and settle them.

        Returns:
            True if the first of a line has gone, so that the next may be due.
        """
        self._any_ended.wait()
        if self._hurry.wait(GATHER_DELAY):
            self._complete.wait(GATHER_DELAY_IN_LINE)
        self._any_ended.clear()
        self._hurry.clear()
        self._settling = len(self._ended)
        self._settle([self._ended.popleft() for _ in range(self._settling)])
        if not self._lines_moved.is_set():
            return False
        self._lines_moved.clear()
        return True

    def settle_held(self) -> None:
        """Settle what is held when all that ended is settled: it was cut off."""
        self._settle([Settlement(run, self._cut_off) for run in self._held.runs()])

    def _settle(self, batch: list[Settlement]) -> None:
        while batch:
            with self._outages.ride_out("settle"):
                self._record(batch)
                return
            if self._complete.is_set():
                log.error("settle.given_up", count=len(batch),
                          hint="Redis is away; other workers run these events again")  # fmt: skip
                return

    def _record(self, batch: list[Settlement]) -> None:
        started = time.time_ns()
        recorded = self._guard.settle(batch)
        self._spans.settled(batch, started, time.time_ns())
        self._tell(batch, recorded)
        self._settling = 0
        self.settled += len(batch)
        self._held.remove([each.run for each in batch])
        if any(each.run.pending.line for each in batch):
            self._lines_moved.set()
        if self._suspects.reserved or self._suspects.waiting:
            self._wake()

    def _tell(self, batch: list[Settlement], recorded: Sequence[bool | None]) -> None:
        debugging = logging.getLogger().isEnabledFor(logging.DEBUG)
        for settlement, kept in zip(batch, recorded, strict=True):
            if kept and settlement.outcome.verdict == "dead":
                self._tell_dead(settlement)
            if debugging:
                _log_settled(settlement, recorded=bool(kept))
        self._burials.tell(self._guard.displaced)
        lost = [each.run for each, kept in zip(batch, recorded, strict=True) if kept is False]
        if lost:
            log.warning(
                "claim.lost",
                event_id=lost[0].pending.entry.event_id,
                attempt=lost[0].attempt,
                count=len(lost),
                hint="another worker has taken over, and its outcome counts; or Redis lost data",
            )

    def _tell_dead(self, settlement: Settlement) -> None:
        entry, failure = settlement.run.pending.entry, settlement.outcome.failed[0]
        if failure.reason == UNHANDLED:
            self._burials.add(entry.event_type)
            return
        log.error(
            "event.dead",
            event_id=entry.event_id,
            event_type=entry.event_type,
            handler=failure.handler,
            reason=failure.reason,
            attempt=settlement.run.attempt,
            dead_letters=self._guard.dead_letters,
        )


def _log_settled(settlement: Settlement, *, recorded: bool) -> None:
    entry, outcome = settlement.run.pending.entry, settlement.outcome
    log.debug(
        "attempt.settled",
        event_id=entry.event_id,
        event_type=entry.event_type,
        attempt=settlement.run.attempt,
        verdict=outcome.verdict,
        finished=list(outcome.finished),
        recorded=recorded,
    )
