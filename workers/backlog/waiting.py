"""Holds claimed events that have not begun, by what they wait for.

They wait for a slot, a limit, their batch to be full, or an empty pool. The dispatcher takes them
out; the intake gives back what is left when it stops.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from flybridge.bridge.store.streams import OTHER
from flybridge.workers.backlog import quarantine
from flybridge.workers.backlog.batches import Batches
from flybridge.workers.backlog.limits import Buckets, Limits
from flybridge.workers.backlog.queues import emptied
from flybridge.workers.backlog.suspects import Suspects

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.routes.routing import Routing


class Pool(Buckets, Protocol):
    """A pool, as far as events wait for it."""

    @property
    def shares_process(self) -> bool:
        """Whether a handler that kills its process kills the whole worker."""


class Waiting:
    """The events that wait for one pool; filled from any thread, emptied by one.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self, routing: Routing, pool: Pool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._routing = routing
        self._pool = pool
        self.limits = Limits(routing, pool, clock)
        self.batches = Batches(routing, clock)
        self.suspects = Suspects(self._patience, clock)
        self.ready: deque[Run] = deque()
        """For the next free slot, from the left."""

    def add(self, runs: Iterable[Run]) -> None:
        """Add what was claimed just now."""
        self.ready.extend(self._others(runs))

    def put_back(self, runs: Iterable[Run]) -> None:
        """Add, in front, what was taken out and whose handlers never started."""
        self.ready.extendleft(self._others(runs))

    def drain_ready(self) -> list[Run]:
        """Take out what waits for a slot only."""
        return emptied(self.ready)

    def drain(self) -> list[Run]:
        """Take out everything."""
        found = self.drain_ready() + emptied(self.suspects.waiting)
        return found + self.limits.drain() + self.batches.drain()

    def caps(self, streams: Iterable[str]) -> dict[str, int]:
        """Streams of which no more than so many entries should be claimed now."""
        tasks = {stream: self._routing.task_of(stream.rpartition(":")[2]) for stream in streams}
        rooms = {stream: self._room(task) for stream, task in tasks.items()}
        caps = {stream: room for stream, room in rooms.items() if room is not None}
        # Events of types without a stream of their own share one, which nobody reads past them.
        waiting = {*self.limits.tasks(), *self.batches.tasks()} - set(tasks.values())
        foreign = [room for task in waiting if (room := self._room(task)) is not None]
        if foreign:
            least = min(foreign)
            shared = (stream for stream in tasks if stream.endswith(f":{OTHER}"))
            caps |= {stream: min(least, caps.get(stream, least)) for stream in shared}
        return caps

    def _room(self, task: str) -> int | None:
        # Where both speak, it is the batch that gathers, and a limit counts batches.
        room = self.batches.room(task)
        return self.limits.room(task) if room is None else room

    def excess(self) -> list[Run]:
        """Take out what waits beyond measure, for other workers."""
        return self.limits.excess() + self.suspects.excess()

    @property
    def uncounted(self) -> int:
        """Held events that do not count against the window, for they wait for more than a slot."""
        return self.limits.parked + self.batches.uncounted + len(self.suspects.waiting)

    def _others(self, runs: Iterable[Run]) -> list[Run]:
        """Those that wait for a slot only; the others are put where they wait."""
        unsuspected = []
        for run in runs:
            if (run.crashes or run.attempt > 1) and self._is_suspect(run):
                self.suspects.add(run)
            else:
                unsuspected.append(run)
        return self.limits.park(self.batches.add(unsuspected))

    def _is_suspect(self, run: Run) -> bool:
        shares = self._pool.shares_process
        return quarantine.is_suspect(run, self._max_attempts(run), shares_process=shares)

    def _patience(self, run: Run) -> float:
        return quarantine.patience(run, self._max_attempts(run))

    def _max_attempts(self, run: Run) -> int:
        return self._routing.max_attempts_of(self._routing.task_of(run.pending.entry.event_type))
