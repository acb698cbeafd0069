"""Decides whose turn the pool is: that of a suspect, which runs alone, or that of all other events.

Nothing else starts while a suspect runs, nor while the pool empties for it. Afterwards others have
the pool for as long as they were kept out: a hundred suspects take half of a worker's time at most.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from flybridge.handlers.loggers import get_logger

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run

log = get_logger(__name__)

MAX_SUSPECTS = 256
"""Suspects that wait here; more are given back."""

OTHERS_TURN = 0.1
"""Seconds that others have between two suspects, at least."""

DRAIN = 2.0
"""Seconds that others stand still, at most, until the pool is empty. Twice as long after each time
in vain, up to `LONGEST_TURN`: then the suspect starts beside what hangs there.
"""

LONGEST_TURN = 60.0
"""Seconds that others wait for a suspect which runs, or a suspect for them, at most: one that hangs
must not stop a worker for ever."""


class Suspects:
    """The suspects that wait; filled from any thread, emptied by one.

    Args:
        patience: of a suspect: seconds that others wait for it while it runs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        patience: Callable[[Run], float] = lambda _: LONGEST_TURN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._alone: Run | None = None
        self._draining = False
        self._kept_out_since = 0.0
        self._began = 0.0
        self._others_until = 0.0
        self._fruitless = 0
        self.waiting: deque[Run] = deque()

    @property
    def reserved(self) -> bool:
        """Whether nothing else may start."""
        return self._draining or self._alone is not None

    def add(self, run: Run) -> None:
        """Have it wait for its turn."""
        self.waiting.append(run)

    def put_back(self, run: Run) -> None:
        """Put a taken suspect back that cannot start yet; the pool stays empty for it."""
        self._alone, self._draining = None, True
        self.waiting.appendleft(run)

    def excess(self) -> list[Run]:
        """Take out those beyond measure."""
        return [self.waiting.pop() for _ in range(len(self.waiting) - MAX_SUSPECTS)]

    def take(self, beside: int, *, others: bool) -> Run | None:
        """The suspect that may start now, if any.

        Args:
            beside: events that would suffer from a crash: in the pool, or not settled yet.
            others: whether any could start.
        """
        now = self._clock()
        if self._alone and (not beside or now - self._began >= self._patience(self._alone)):
            self._let_others(now)
        if not self.waiting:
            self._draining = False
            return None
        if self._alone or not self._is_its_turn(now, beside, others):
            return None
        if not beside:
            return self._start(now)
        if now - self._kept_out_since < self._drain:
            return None
        if self._drain < LONGEST_TURN:
            self._fruitless += 1
            self._let_others(now)
            return None
        log.warning("suspect.not_alone", beside=beside,
                    hint="handlers seem to hang (handler.overrun); it starts anyway")  # fmt: skip
        self._let_others(now)
        return self.waiting.popleft()

    def wait(self) -> float | None:
        """Seconds until it may be another's turn by time alone; None: not before something ends."""
        now = self._clock()
        if self._alone:
            return self._began + self._patience(self._alone) - now
        if self._draining:
            return self._kept_out_since + self._drain - now
        return self._others_until - now if self.waiting else None

    @property
    def _drain(self) -> float:
        return min(LONGEST_TURN, DRAIN * 2.0**self._fruitless)

    def _is_its_turn(self, now: float, beside: int, others: bool) -> bool:
        if not self._draining and (now >= self._others_until or not (beside or others)):
            self._draining, self._kept_out_since = True, now
        return self._draining

    def _start(self, now: float) -> Run:
        self._draining, self._fruitless, self._began = False, 0, now
        self._alone = self.waiting.popleft()
        return self._alone

    def _let_others(self, now: float) -> None:
        self._alone, self._draining = None, False
        self._others_until = now + max(OTHERS_TURN, now - self._kept_out_since)
