"""The Celery bootstep that owns the intake: hands claimed events to the pool as it has room.

It decides nothing; it translates between Celery's consumer, which is made anew after each loss of
the broker, and the intake, which lives as long as the worker.
"""

from __future__ import annotations

import os
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps, signals
from celery.platforms import EX_FAILURE
from celery.worker import state
from redis.exceptions import RedisError

from bridge import telemetry
from bridge.logs import Redactor
from bridge.redis_client import sync_client
from bridge.streams import Keys
from handlers.registry import registry
from workers import poison
from workers.bell import Bell
from workers.bundles import Bundles
from workers.guard import Guard
from workers.intake import Intake
from workers.limits import LOOK, Limits
from workers.outcomes import Outcome
from workers.reader import StreamReader
from workers.requests import EventRequest, EventTask, crashed
from workers.spans import IntakeSpans
from workers.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.settings import WorkerSettings
    from workers.guard import Run
    from workers.limits import Bucket
    from workers.routing import Routing

log = structlog.get_logger("workers.bootstep")

ALARM_STEP = 0.001
"""Seconds that an alarm may be late."""


class IntakeStep(bootsteps.StartStopStep):
    """Starts with Celery's task consumer; needs a pool on Celery's event loop."""

    label = "Intake"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    settings: WorkerSettings
    routing: Routing

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._consumer = consumer
        self._requests: set[EventRequest] = set()
        self._bundles = Bundles()
        self._bell = Bell(self._hand_over)
        self._alarm: Any = None
        self._alarm_due = 0.0
        self._turn = 0
        self._waiting = self._make_waiting()
        self._intake: Intake | None = None
        self._isolate: Callable[[Run], int]

    def start(self, consumer: Any) -> None:
        """Take up the streams, or go on after the consumer was made anew."""
        if consumer.hub is None:
            raise _unfit(consumer)
        self._consumer = consumer
        if self._intake is None:
            self._intake = self._make_intake(consumer)
            signals.worker_shutdown.connect(self._close, weak=False)
            # Celery's loop looks at its orders when it wakes.
            signals.worker_shutting_down.connect(self._wake, weak=False)
        self._alarm = None
        self._intake.slots = slots(consumer.pool)
        self._intake.start()
        self._bell.hang(consumer.hub)

    def stop(self, consumer: Any) -> None:
        """The consumer goes: for good at shutdown, for a moment when the broker was lost."""
        if self._intake is None:
            return
        # Celery forgets what it has not given to the pool yet, and does not say so.
        for request in [each for each in list(self._requests) if each.forget()]:
            self._forget(request)
            self._waiting.put_back(request.runs)
        if consumer.controller.blueprint.state != bootsteps.RUN:
            self._intake.stop()

    def info(self, consumer: Any) -> dict[str, Any]:
        """For `celery inspect stats`."""
        intake = self._intake
        if intake is None:
            return {}
        return {
            "streams": {
                "held": intake.held,
                "parked": self._waiting.limits.parked,
                "requests": len(self._requests),
                "settled": intake.settled,
                "duplicates": intake.duplicates,
            }
        }

    def _make_intake(self, consumer: Any) -> Intake:
        settings = self.settings
        keys = Keys(settings.app_id)
        boot = f"{consumer.hostname}.{os.getpid()}.{secrets.token_hex(4)}"
        redis = sync_client(settings.redis_url, app_id=settings.app_id)
        # A read whose answer was lost must not be repeated unseen: the first one took entries.
        once = sync_client(settings.redis_url, app_id=settings.app_id, retries=0)
        reader = StreamReader(once, keys, settings.group, boot, settings.event_lease)

        def streams() -> list[str]:
            reader.subscribe(self.routing.covered(self._queues()))
            known = reader.known_types() | set(self._own_types())
            replayed = reader.replayed_types()
            return [
                *(keys.stream(name) for name in known if self._consumes(name)),
                *(keys.replay(settings.group, name) for name in replayed if self._consumes(name)),
            ]

        def disconnect() -> None:
            for client in (redis, once):
                client.connection_pool.disconnect(inuse_connections=False)

        self._spans = IntakeSpans(
            telemetry.span_exporter(), telemetry.resource(telemetry.WORKER), settings.group
        )
        guard = Guard(
            redis,
            keys,
            settings.group,
            settings.event_lease,
            boot,
            retention=settings.retention,
            redact=Redactor(settings.secrets).text,
        )
        self._isolate = partial(poison.isolate, redis, keys, settings.group)
        log.info(
            "intake.started",
            group=settings.group,
            consumer=boot,
            queues=" ".join(sorted(consumer.app.amqp.queues.consume_from)),
            handlers=" ".join(registration.name for registration in registry.list()),
        )
        return Intake(
            reader,
            guard,
            streams,
            settings.event_lease,
            self._waiting,
            self._bell.ring,
            self._spans,
            self._died,
            disconnect,
        )

    def _make_waiting(self) -> Waiting:
        def bucket_of(task: str) -> Bucket | None:
            consumer = self._consumer
            bucket: Bucket | None = consumer.task_buckets[task]
            return None if consumer.disable_rate_limits else bucket

        routes = self.routing.routes.values()
        concurrency = {route.task: route.concurrency for route in routes if route.concurrency}
        return Waiting(Limits(self.routing.task_of, concurrency, bucket_of), self._is_suspect)

    def _own_types(self) -> set[str]:
        return {
            task.event_type
            for task in self._consumer.app.tasks.values()
            if isinstance(task, EventTask) and task.event_type
        }

    def _queues(self) -> list[str]:
        consumer = self._consumer.task_consumer
        return [queue.name for queue in consumer.queues] if consumer is not None else []

    def _consumes(self, event_type: str) -> bool:
        consumer = self._consumer.task_consumer
        return consumer is not None and consumer.consuming_from(self.routing.queue_of(event_type))

    def _hand_over(self) -> None:
        intake, consumer = self._intake, self._consumer
        if intake is None or consumer.blueprint.state != bootsteps.RUN:
            return
        intake.slots = slots(consumer.pool)
        self._hand_suspects()
        if self._waiting.suspects.reserved:
            self._set_alarm(LOOK)
            return
        while self._hand_next():
            continue
        intake.give_back(self._waiting.limits.excess(), LOOK)
        self._set_alarm(self._waiting.limits.wait() if self._free() > 0 else None)

    def _hand_next(self) -> bool:
        """Hand a request over. Who waits takes turns, so that no task fills the pool alone."""
        queues = ["", *self._waiting.limits.tasks()]
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
        if free <= 0 or not self._waiting.ready:
            return False
        run = self._waiting.ready.popleft()
        task = self._task_of(run)
        if self._waiting.limits.limited(task):
            # An operator has set a rate since it was claimed.
            self._waiting.limits.park([run])
        else:
            self._hand(task, self._next_bundle(task, run, free))
        return True

    def _hand_parked(self, task: str) -> bool:
        run = self._waiting.limits.take(task) if self._free() > 0 else None
        if run is None:
            return False
        self._hand(task, [run])
        return True

    def _next_bundle(self, task: str, first: Run, free: int) -> list[Run]:
        ready, runs = self._waiting.ready, [first]
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
        suspects = self._waiting.suspects
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
        """Events that would run again if a suspect killed its process now."""
        if self._intake is None or not shares_process(self._consumer.pool):
            return 0
        return len(self._requests) + self._intake.unsettled

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
        return self.routing.routes[task].max_attempts

    def _task_of(self, run: Run) -> str:
        return self.routing.task_of(run.pending.entry.event_type)

    def _hand(self, task: str, runs: list[Run]) -> None:
        runs = self._still_ours(runs)
        if not runs:
            return
        take_on = self._consumer.strategies[task]
        try:
            request = take_on(runs, self._spans.context, self._finish)
        except Exception as error:
            # Whatever Celery or a signal receiver raises: no event may be held for ever.
            log.exception("request.refused", task=task, events=len(runs))
            for run in runs:
                self._end(run, crashed(run, EventTask.max_attempts, repr(error)))
            return
        self._requests.add(request)
        self._waiting.limits.began(task, request)
        # In that order, for a thread of the pool may end it at any moment.
        if request.ended:
            self._forget(request)

    def _forget(self, request: EventRequest) -> None:
        self._requests.discard(request)
        self._waiting.limits.ended(request.task_name, request)

    def _still_ours(self, runs: list[Run]) -> list[Run]:
        lost = self._intake.lost if self._intake else ()
        if not lost:
            return runs
        for run in runs:
            if run.token in lost:
                # The settlement will say so.
                self._end(run, Outcome(retry_after=0.0))
        return [run for run in runs if run.token not in lost]

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
        self._hand_over()

    def _finish(self, request: EventRequest, outcomes: Sequence[Outcome], longest: float) -> None:
        self._forget(request)
        self._bundles.ran(request.task_name, longest)
        for run, outcome in zip(request.runs, outcomes, strict=False):
            self._end(run, outcome)
        self._waiting.put_back(request.runs[len(outcomes) :])
        self._bell.ring()

    def _end(self, run: Run, outcome: Outcome) -> None:
        if self._intake is not None:
            self._intake.end(run, outcome)

    def _died(self) -> None:
        state.should_stop = EX_FAILURE
        self._bell.ring()

    def _wake(self, **_: Any) -> None:
        self._bell.ring()

    def _close(self, **_: Any) -> None:
        if self._intake is not None:
            self._intake.close()


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


def _unfit(consumer: Any) -> RuntimeError:
    return RuntimeError(
        f"the pool {type(consumer.pool).__module__} does not run on Celery's event loop;"
        " use --pool prefork, threads, solo or asyncio"
    )
