"""Hands suspects to the pool one at a time, when nothing is in it that a crash would hit.

Who is a suspect, and what its last attempt alone says about it, is the business of `poison.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from handlers.loggers import get_logger
from workers import poison

if TYPE_CHECKING:
    from workers.claims import Run
    from workers.outcomes import Outcome
    from workers.suspects import Suspects

log = get_logger("workers.handover")


class Solitude:
    """Of one pool; belongs to its loop.

    Args:
        suspects: those that wait.
        beside: how many events would run again if a suspect killed its process now.
        max_attempts_of: of an event.
        isolate: notes that an event runs alone, see `poison.isolate`; None: it is being noted, and
            asking again will tell.
        hand: gives an event to the pool.
        end: tells how one ended that is not to run.
    """

    def __init__(
        self,
        suspects: Suspects,
        beside: Callable[[], int],
        max_attempts_of: Callable[[Run], int],
        isolate: Callable[[Run], int | None],
        hand: Callable[[Run], None],
        end: Callable[[Run, Outcome], None],
    ) -> None:
        self._suspects = suspects
        self._beside = beside
        self._max_attempts_of = max_attempts_of
        self._isolate = isolate
        self._hand = hand
        self._end = end

    def hand_over(self, *, others: bool) -> None:
        """Hand over those whose turn it is now.

        Args:
            others: whether other events could start.
        """
        while run := self._suspects.take(self._beside(), others=others):
            if self._beside():
                self._hand(run)
                continue
            before = self._before(run)
            if before is None:
                self._suspects.put_back(run)
                return
            self._judge(run, before)

    def _before(self, run: Run) -> int | None:
        """In which attempt it ran alone last, as far as Redis says so."""
        try:
            return self._isolate(run)
        except RedisError as error:
            log.warning("suspect.waits", event_id=run.pending.entry.event_id, error=str(error))
            return None

    def _judge(self, run: Run, before: int) -> None:
        outcome = poison.verdict(run, self._max_attempts_of(run), before)
        if outcome:
            self._end(run, outcome)
            return
        log.info("suspect.runs_alone", event_id=run.pending.entry.event_id, attempt=run.attempt,
                 crashes=run.crashes)  # fmt: skip
        self._hand(run)
