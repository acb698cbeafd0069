"""Gathers events for handlers that take batches, until a batch is full or old enough.

The events are claimed already; how many may wait is bounded, so that the rest stays in the stream
for other workers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flybridge.handlers.batch import Batch
from flybridge.workers.backlog.queues import emptied

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.routes.routing import Routing

BATCHES_AHEAD = 2
"""Batches that may wait, so that one is full when a slot becomes free."""


class Batches:
    """Gathers events by task; `add` may be called from any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, routing: Routing, clock: Callable[[], float] = time.monotonic) -> None:
        self._task_of = routing.task_of
        self._batch_of = routing.batch_of
        self._clock = clock
        self._gathered: dict[str, deque[tuple[float, Run]]] = {}
        self._beside: dict[object, int] = {}

    @property
    def uncounted(self) -> int:
        """Held events that do not count against the window: a batch counts as one, and as none
        while it gathers.
        """
        return self._waiting() + sum(list(self._beside.values()))

    def add(self, runs: Iterable[Run]) -> list[Run]:
        """Keep the events of tasks with batches; return the others.

        An event that was there when a process died goes alone, for it may have killed it.
        """
        others, now = [], self._clock()
        for run in runs:
            task = self._task_of(run.pending.entry.event_type)
            if self._batch_of(task) and not run.crashes:
                self._gathered.setdefault(task, deque()).append((now, run))
            else:
                others.append(run)
        return others

    def tasks(self) -> list[str]:
        """The tasks with events that wait."""
        return [task for task, runs in list(self._gathered.items()) if runs]

    def is_ready(self, task: str) -> bool:
        """Whether a batch of this task is full, or has waited long enough."""
        return bool(self._gathered[task]) and self.wait(task) == 0.0

    def take(self, task: str) -> list[Run]:
        """Take out the batch that is ready."""
        runs, size = self._gathered[task], self._batch(task).size
        return [runs.popleft()[1] for _ in range(min(size, len(runs)))]

    def wait(self, task: str) -> float:
        """Seconds until what waits of this task is ready, as it is now."""
        runs, batch = self._gathered[task], self._batch(task)
        if len(runs) >= batch.size:
            return 0.0
        return max(0.0, runs[0][0] + batch.wait - self._clock())

    def began(self, what: object, events: int) -> None:
        """Count a request of so many events as running, until it has `ended`."""
        if events > 1:
            self._beside[what] = events - 1

    def ended(self, what: object) -> None:
        """Count a request no more."""
        self._beside.pop(what, None)

    def room(self, task: str) -> int | None:
        """How many more events of a task may gather; None for a task without batches."""
        batch = self._batch_of(task)
        if batch is None:
            return None
        return max(0, BATCHES_AHEAD * batch.size - len(self._gathered.get(task, ())))

    def drain(self) -> list[Run]:
        """Take out everything."""
        queues = list(self._gathered.values())
        return [run for queue in queues for _, run in emptied(queue)]

    def _waiting(self) -> int:
        return sum(map(len, list(self._gathered.values())))

    def _batch(self, task: str) -> Batch:
        # Without its handler, which was taken away meanwhile, the events go one at a time.
        return self._batch_of(task) or Batch(1, 0.0)
