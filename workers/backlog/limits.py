"""Limits the rate and the concurrency of tasks: parks events until they may start.

Parked events are claimed already, but they are few: the rest stays in the stream for other workers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from flybridge.workers.backlog.queues import emptied
from flybridge.workers.backlog.window import Window

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.routes.routing import Routing

MAX_PARKED = 256
"""Events parked per task. More come only if a limit is set while events flow; they are given back.
"""

RECHECK_PERIOD = 1.0
"""Seconds between looks at parked events at most: an operator may change a rate at any time."""


class Bucket(Protocol):
    """Kombu's token bucket, of one token."""

    def can_consume(self, tokens: int = 1) -> bool:
        """Take a token if there is one."""

    def expected_time(self, tokens: int = 1) -> float:
        """Seconds until there is one."""


class Buckets(Protocol):
    """A pool, as far as rate limits go."""

    def bucket_of(self, task: str) -> Bucket | None:
        """The bucket of a task's rate limit, which may change at any time; None for no limit."""


class Limits:
    """Parks events of limited tasks; `take` and `wait` belong to one thread, the rest to any.

    Limits may change at any time; a smaller concurrency is met as the running requests end.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self, routing: Routing, pool: Buckets, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._task_of = routing.task_of
        self._concurrency_of = routing.concurrency_of
        self._bucket_of = pool.bucket_of
        self._clock = clock
        self._parked: dict[str, deque[Run]] = {}
        self._started: dict[str, Window] = {}
        self._running: dict[str, set[object]] = {}

    @property
    def parked(self) -> int:
        """Events that wait for a limit."""
        return sum(map(len, list(self._parked.values())))

    def limited(self, task: str) -> bool:
        """Whether its events must be parked before they start."""
        return self._concurrency_of(task) is not None or self._bucket_of(task) is not None

    def tasks(self) -> list[str]:
        """The tasks with parked events."""
        return [task for task, runs in list(self._parked.items()) if runs]

    def park(self, runs: Iterable[Run]) -> list[Run]:
        """Keep the events of limited tasks, behind those parked already; return the others."""
        free = []
        for run in runs:
            task = self._task_of(run.pending.entry.event_type)
            if self.limited(task):
                self._parked.setdefault(task, deque()).append(run)
            else:
                free.append(run)
        return free

    def take(self, task: str) -> Run | None:
        """The next event of this task if it may start now; it counts as started."""
        runs = self._parked[task]
        if not runs or not self.admit(task):
            return None
        self._window(task).settled(1, self._clock())
        return runs.popleft()

    def admit(self, task: str) -> bool:
        """Whether one more event or batch of this task may start now; it counts as started."""
        bucket = self._bucket_of(task)
        return bool(self._slots(task)) and (bucket is None or bucket.can_consume())

    def delay(self, task: str) -> float | None:
        """Seconds until `admit` may say yes; None: not before something of the task has ended."""
        if not self._slots(task):
            return None
        bucket = self._bucket_of(task)
        return min(RECHECK_PERIOD, bucket.expected_time()) if bucket else 0.0

    def began(self, task: str, what: object) -> None:
        """Count a request of this task as running, until it has `ended`."""
        # Of every task: a limit may come while they run.
        self._running.setdefault(task, set()).add(what)

    def ended(self, task: str, what: object) -> None:
        """Count a request no more."""
        if task in self._running:
            self._running[task].discard(what)

    def wait(self) -> float | None:
        """Seconds until a parked event may start, as far as that is known; None if none waits."""
        buckets = [self._bucket_of(task) for task in self.tasks() if self._slots(task)]
        return min(
            (min(RECHECK_PERIOD, each.expected_time()) for each in buckets if each), default=None
        )

    def room(self, task: str) -> int | None:
        """How many more events of a task to claim: what starts at once, and a moment's work more;
        None for a task without a limit."""
        if not self.limited(task):
            return None
        at_once = self._slots(task) if self._bucket_of(task) is None else 0
        ahead = min(MAX_PARKED, self._window(task).size(1))
        return max(0, at_once + ahead - len(self._parked.get(task, ())))

    def excess(self) -> list[Run]:
        """Take out what is parked beyond measure."""
        found = []
        for task in self.tasks():
            runs = self._parked[task]
            found += [runs.pop() for _ in range(len(runs) - MAX_PARKED)]
        return found

    def drain(self) -> list[Run]:
        """Take out everything."""
        return [run for task in self.tasks() for run in emptied(self._parked[task])]

    def _slots(self, task: str) -> int:
        most = self._concurrency_of(task)
        return 1 if most is None else max(0, most - len(self._running.get(task, ())))

    def _window(self, task: str) -> Window:
        # In one step, for threads that read ask for it too.
        return self._started.get(task) or self._started.setdefault(task, Window(self._clock()))
