"""Finds out which event kills its process, without giving up those that ran beside it.

A prefork child runs one suspect at a time, and the pool says which child died. In the pools that
share a process, everything the worker held when it died counts a crash, guilty or not. An event
with too many crashes runs alone, which is noted in its state; only what dies alone, after as many
attempts as it may have, is given up. `suspects.py` says whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from redis import Redis

from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.streams import Keys
from flybridge.workers.backlog.suspects import LONGEST_TURN
from flybridge.workers.claim.outcomes import Failure, Outcome

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run

CRASHES_TO_SUSPECT = 2
"""Crashes of its process after which an event runs alone, if it has attempts left for that."""

SLOW_TURN = 5.0
"""Seconds that others wait for a suspect with attempts left."""


def is_suspect(run: Run, max_attempts: int, *, shares_process: bool) -> bool:
    """Whether an event should run alone.

    More attempts than allowed come of claims that died with their worker; nobody can tell whether
    the handlers had begun, so it is not given up unheard.
    """
    if run.attempt > max_attempts:
        return True
    return shares_process and run.crashes >= max(1, min(CRASHES_TO_SUSPECT, max_attempts - 1))


def patience(run: Run, max_attempts: int) -> float:
    """Seconds that others wait for a suspect which runs alone.

    While it has attempts left, whether it ran alone to its end decides nothing: others may join one
    that is slow. They would not be given up for its crash either.
    """
    return LONGEST_TURN if run.attempt >= max_attempts else SLOW_TURN


def isolate(redis: Redis, keys: Keys, group: str, run: Run) -> int:
    """Note that a suspect is about to run alone.

    Returns:
        The attempt noted before, 0 for none; -1 if another worker has taken the event over.

    Raises:
        redis.RedisError: nothing is known to be noted; ask again.
    """
    state = keys.state(group, run.pending.entry.event_id)
    (answer,) = run_all(redis, [Call(load("isolate"), (state,), (run.token, run.attempt))])
    # A state that somebody has spoilt meanwhile says no more whose the event is; settling tells.
    return -1 if isinstance(answer, Exception) else int(answer)


class Isolation:
    """Calls `isolate` in a thread of its own, for a loop must not wait for Redis.

    Args:
        wake: called from the thread when there is an answer.
    """

    def __init__(self, ask: Callable[[Run], int], wake: Callable[[], None]) -> None:
        self._ask = ask
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, "flybridge-suspects")
        self._answers: dict[str, Future[int]] = {}

    def __call__(self, run: Run) -> int | None:
        """What `isolate` says; None: that is not known yet, and a `wake` will tell when it is.

        Raises:
            redis.RedisError: see `isolate`.
        """
        answer = self._answers.get(run.token)
        if answer is None:
            answer = self._answers[run.token] = self._thread.submit(self._ask, run)
            answer.add_done_callback(lambda _: self._wake())
        if not answer.done():
            return None
        return self._answers.pop(run.token).result()

    def close(self) -> None:
        """Let the thread end; it is not waited for."""
        self._thread.shutdown(wait=False)


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
