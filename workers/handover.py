"""Hands claimed events to the pool as it has room, and takes back what Celery forgets.

What waits takes turns: the events of each limited task, and all others. A suspect of killing its
process has the pool to itself. It reads no stream and settles nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps
from redis.exceptions import RedisError

from workers import poison
from workers.bell import Bell
from workers.bundles import Bundles
from workers.limits import LOOK, Limits
from workers.outcomes import Outcome
from workers.requests import EventRequest, EventTask, crashed
from workers.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.guard import Run
    from workers.intake import Intake
    from workers.limits import Bucket
    from workers.requests import Trace
    from workers.routing import Routing

log = structlog.get_logger("workers.handover")

ALARM_STEP = 0.001
"""Seconds that an alarm may be late."""


class HandOver:
    """Between the events that wait and one pool; all but `ring` belongs to Celery's loop.

    Args:
        routing: of this worker.
        consumer: Celery's.
    """

    def __init__(self, routing: Routing, consumer: Any) -> None:
        self._consumer = consumer
        self._routing = routing
        self._bell = Bell(self.hand_over)
        self._requests: set[EventRequest] = set()
        self._bundles = Bundles()
        self._alarm: Any = None
        self._alarm_due = 0.0
        self._turn = 0
        self._intake: Intake | None = None
        self._trace: Trace
        self._isolate: Callable[[Run], int]
        routes = routing.routes.values()
        concurrency = {route.task: route.concurrency for route in routes if route.concurrency}
        limits = Limits(routing.task_of, concurrency, self._bucket_of)
        self.waiting = Waiting(limits, self._is_suspect)
        """Where the intake puts what it claimed."""

    def begin(self, intake: Intake, trace: Trace, isolate: Callable[[Run], int]) -> None:
        """Take over what waits for the pool from now on.

        Args:
            intake: is told how attempts end.
            trace: gives the traceparent of an event.
            isolate: notes that an event runs alone; see `poison.isolate`.
        """
        self._intake, self._trace, self._isolate = intake, trace, isolate

    @property
    def requests(self) -> int:
        """Requests that the pool has."""
        return len(self._requests)

    def resume(self, consumer: Any) -> None:
        """Go on with a consumer that was made, or made anew; it may have forgotten our alarm."""
        self._consumer = consumer
        self._alarm = None
        self._bell.hang(consumer.hub)

    def ring(self) -> None:
        """Have Celery's loop hand over soon; callable from any thread."""
        self._bell.ring()

    def recall(self) -> None:
        """Take back what Celery has not given to the pool: it forgets that, and does not say so."""
        for request in [each for each in list(self._requests) if each.forget()]:
            self._forget(request)
            self.waiting.put_back(request.runs)

    def hand_over(self) -> None:
        """Give the pool as much as it takes now."""
        intake, consumer = self._intake, self._consumer
        if intake is None or consumer.blueprint.state != bootsteps.RUN:
            return
        intake.slots = slots(consumer.pool)
        self._hand_suspects()
        if self.waiting.suspects.reserved:
            self._set_alarm(LOOK)
            return
        while self._hand_next():
            continue
        intake.give_back(self.waiting.limits.excess(), LOOK)
        self._set_alarm(self.waiting.limits.wait() if self._free() > 0 else None)

    def _hand_next(self) -> bool:
        """Hand a request over. Who waits takes turns, so that no task fills the pool alone."""
        queues = ["", *self.waiting.limits.tasks()]
        for _ in queues:
            self._turn += 1
            task = queues[self._turn % len(queues)]
            if self._hand_parked(task) if task else self._hand_ready():
                return True
        return False

    def _free(self) -> int:
        return depth(self._consumer.pool) - len(self._requests)

    def _hand_ready(self) -> bool:
        free = self._free()
        if free <= 0 or not self.waiting.ready:
            return False
        run = self.waiting.ready.popleft()
        task = self._task_of(run)
        if self.waiting.limits.limited(task):
            # An operator has set a rate since it was claimed.
            self.waiting.limits.park([run])
        else:
            self._hand(task, self._next_bundle(task, run, free))
        return True

    def _hand_parked(self, task: str) -> bool:
        run = self.waiting.limits.take(task) if self._free() > 0 else None
        if run is None:
            return False
        self._hand(task, [run])
        return True

    def _next_bundle(self, task: str, first: Run, free: int) -> list[Run]:
        ready, runs = self.waiting.ready, [first]
        # What failed once travels alone: it may be what kills the process.
        if first.attempt > 1 or not self._bundled(task):
            return runs
        size = self._bundles.size(task, len(ready) + 1, free)
        while len(runs) < size:
            run = ready.popleft()
            if run.attempt > 1 or self._task_of(run) != task:
                ready.appendleft(run)
                break
            runs.append(run)
        return runs

    def _bundled(self, task: str) -> bool:
        consumer = self._consumer
        if getattr(consumer.pool, "runs_coroutines", False):
            return False
        # A neighbour's crash would bury an event that may be tried once; a revocation names one.
        return self._max_attempts(task) > 1 and not consumer.controller.state.revoked

    def _hand_suspects(self) -> None:
        """Hand those to the pool that have it to themselves, as it becomes empty."""
        suspects = self.waiting.suspects
        while run := suspects.take(self._beside()):
            if self._beside():
                self._hand(self._task_of(run), [run])
                continue
            try:
                before = self._isolate(run)
            except RedisError as error:
                log.warning("suspect.waits", event_id=_event_id(run), error=str(error))
                suspects.waiting.appendleft(run)
                return
            self._judge(run, before)

    def _beside(self) -> int:
        """Events that would run again if a suspect killed its process now.

        Among processes of their own, those that it would wait behind: what dies with the worker
        before it began must not be taken for what ran alone.
        """
        pool = self._consumer.pool
        if self._intake is None:
            return 0
        if shares_process(pool):
            return len(self._requests) + self._intake.unsettled
        return len(self._requests) if len(self._requests) >= slots(pool) else 0

    def _judge(self, run: Run, before: int) -> None:
        task = self._task_of(run)
        outcome = poison.verdict(run, self._max_attempts(task), before)
        if outcome:
            self._end(run, outcome)
            return
        log.info("suspect.runs_alone", event_id=_event_id(run), attempt=run.attempt,
                 crashes=run.crashes)  # fmt: skip
        self._hand(task, [run])

    def _is_suspect(self, run: Run) -> bool:
        shares = shares_process(self._consumer.pool)
        most = self._max_attempts(self._task_of(run))
        return poison.is_suspect(run, most, shares_process=shares)

    def _max_attempts(self, task: str) -> int:
        return self._routing.routes[task].max_attempts

    def _task_of(self, run: Run) -> str:
        return self._routing.task_of(run.pending.entry.event_type)

    def _hand(self, task: str, runs: list[Run]) -> None:
        runs = self._still_ours(runs)
        if not runs:
            return
        take_on = self._consumer.strategies[task]
        try:
            request = take_on(runs, self._trace, self._finish)
        except Exception as error:
            # Whatever Celery or a signal receiver raises: no event may be held for ever.
            log.exception("request.refused", task=task, events=len(runs))
            for run in runs:
                self._end(run, crashed(run, EventTask.max_attempts, repr(error)))
            return
        self._requests.add(request)
        self.waiting.limits.began(task, request)
        # In that order, for a thread of the pool may end it at any moment.
        if request.ended:
            self._forget(request)

    def _forget(self, request: EventRequest) -> None:
        self._requests.discard(request)
        self.waiting.limits.ended(request.task_name, request)

    def _still_ours(self, runs: list[Run]) -> list[Run]:
        intake = self._intake
        if intake is None:
            return runs
        doubtful = [run for run in runs if not intake.ours(run)]
        if not doubtful:
            return runs
        # If another worker has taken one over, the settlement will say so.
        intake.give_back(doubtful)
        return [run for run in runs if run not in doubtful]

    def _set_alarm(self, wait: float | None) -> None:
        """Hand over again in so many seconds at the latest."""
        if wait is None:
            return
        due = time.monotonic() + wait
        if self._alarm and self._alarm_due <= due + ALARM_STEP:
            return
        if self._alarm:
            self._alarm.cancel()
        # A timer of no delay would wait for the loop's next look, up to a second.
        self._alarm = self._consumer.timer.call_after(max(wait, ALARM_STEP), self._alarmed)
        self._alarm_due = due

    def _alarmed(self) -> None:
        self._alarm = None
        self.hand_over()

    def _finish(self, request: EventRequest, outcomes: Sequence[Outcome], longest: float) -> None:
        self._bundles.ran(request.task_name, longest)
        for run, outcome in zip(request.runs, outcomes, strict=False):
            self._end(run, outcome)
        # Not before, or a suspect could start while nobody counts what just ended.
        self._forget(request)
        self.waiting.put_back(request.runs[len(outcomes) :])
        self.ring()

    def _end(self, run: Run, outcome: Outcome) -> None:
        if self._intake is not None:
            self._intake.end(run, outcome)

    def _bucket_of(self, task: str) -> Bucket | None:
        bucket: Bucket | None = self._consumer.task_buckets[task]
        return None if self._consumer.disable_rate_limits else bucket


def depth(pool: Any) -> int:
    """How many requests to give to a pool: a second one a slot, so that none is idle for a moment.

    The asyncio pool starts at once whatever it is given.
    """
    return slots(pool) * (1 if getattr(pool, "runs_coroutines", False) else 2)


def slots(pool: Any) -> int:
    """How many events a pool runs at once."""
    return max(1, int(pool.num_processes))


def shares_process(pool: Any) -> bool:
    """Whether a handler that kills its process kills the whole worker: in all pools but prefork."""
    return not pool.uses_semaphore


def _event_id(run: Run) -> str:
    return run.pending.entry.event_id
