"""Which event kills its process, and how to find out without burying those that ran beside it.

A prefork child runs one suspect at a time, and the pool says which child died. In the pools that
share a process, whatever the worker held when it died counts a crash: the poison and its innocent
neighbours alike. What counts too many runs alone, with a note of that in its state; only what dies
alone, after as many attempts as it may have, is given up. It runs nothing itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from redis import Redis

from bridge.streams import Keys
from workers.outcomes import Failure, Outcome
from workers.scripts import Call, load, run_all

if TYPE_CHECKING:
    from workers.claims import Run

log = structlog.get_logger("workers.poison")

INNOCENT = 2
"""Crashes of its process after which an event runs alone, if it has attempts left for that."""

PATIENCE = 60.0
"""Seconds that a suspect waits for others, or others for it: one that hangs must not stop a worker
for ever."""


def is_suspect(run: Run, max_attempts: int, *, shares_process: bool) -> bool:
    """Whether an event should run alone.

    More attempts than allowed come of claims that died with their worker; nobody can tell whether
    the handlers had begun, so it is not given up unheard.
    """
    if run.attempt > max_attempts:
        return True
    return shares_process and run.crashes >= max(1, min(INNOCENT, max_attempts - 1))


def isolate(redis: Redis, keys: Keys, group: str, run: Run) -> int:
    """Note that a suspect is about to run alone.

    Returns:
        The attempt noted before, 0 for none; -1 if another worker has taken the event over.

    Raises:
        redis.RedisError: nothing is known to be noted; ask again.
    """
    state = keys.state(group, run.pending.entry.event_id)
    answers = run_all(redis, [Call(load("isolate"), (state,), (run.token, run.attempt))])
    return int(answers[0])


def verdict(run: Run, max_attempts: int, before: int) -> Outcome | None:
    """What a suspect's last attempt alone says about it; None: let it run.

    Args:
        before: the attempt in which it ran alone last, as `isolate` gives it.
    """
    if before < 0:
        # The settlement finds out that it is another worker's, and says so.
        return Outcome(retry_after=0.0)
    if run.attempt <= max_attempts or before != run.attempt - 1:
        return None
    error = f"its process died in {run.crashes} of {before} attempts, in the last one alone"
    return Outcome(failed=(Failure("", "crash_loop", error),))


class Suspects:
    """Those that wait to run alone, and whose turn it is.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = 0.0
        self._alone = False
        self.waiting: deque[Run] = deque()

    def add(self, run: Run) -> None:
        """Have it wait for its turn."""
        if not self.waiting and not self._alone:
            self._since = self._clock()
        self.waiting.append(run)

    def take(self, beside: int) -> Run | None:
        """The suspect that may start now, if any; others wait until it has ended.

        Args:
            beside: events that would suffer from a crash: in the pool, or not settled yet.
        """
        # Before `_since` is read, for `add` sets that first.
        anyone = bool(self.waiting)
        late = self._clock() - self._since > PATIENCE
        if beside and not late:
            return None
        # Who is not alone anyway keeps nobody out: what it runs beside may never end.
        self._alone = anyone and not beside
        if not anyone:
            return None
        if beside:
            log.warning("suspect.not_alone", beside=beside, hint="does a handler hang?")
        self._since = self._clock()
        return self.waiting.popleft()

    @property
    def reserved(self) -> bool:
        """Whether the pool is kept for a suspect."""
        return self._alone or bool(self.waiting)
