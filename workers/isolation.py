"""Notes that a suspect runs alone, without the event loop having to wait for Redis.

What is noted, and what follows from it, is the business of `poison.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.claims import Run


class Isolation:
    """Asks in a thread; belongs to the loop.

    Args:
        ask: waits for Redis, see `poison.isolate`.
        ring: called from the thread when there is an answer.
        executor: of the thread.
    """

    def __init__(
        self, ask: Callable[[Run], int], ring: Callable[[], None], executor: Executor
    ) -> None:
        self._ask = ask
        self._ring = ring
        self._executor = executor
        self._answers: dict[str, Future[int]] = {}

    def __call__(self, run: Run) -> int | None:
        """What `poison.isolate` says; None: that is not known yet.

        Raises:
            redis.RedisError: nothing is known to be noted; ask again.
        """
        answer = self._answers.get(run.token)
        if answer is None:
            answer = self._executor.submit(self._ask, run)
            self._answers[run.token] = answer
            answer.add_done_callback(lambda _: self._ring())
        if not answer.done():
            return None
        del self._answers[run.token]
        return answer.result()
