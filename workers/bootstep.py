"""The Celery bootstep that owns the intake: hands claimed events to the pool as it has room.

It decides nothing; it translates between Celery's consumer, which is made anew after each loss of
the broker, and the intake, which lives as long as the worker.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps, signals
from celery.platforms import EX_FAILURE
from celery.worker import state

from bridge import telemetry
from bridge.redis_client import sync_client
from bridge.streams import Keys
from handlers.registry import registry
from workers.bell import Bell
from workers.bundles import Bundles
from workers.guard import Guard
from workers.intake import Intake
from workers.reader import StreamReader
from workers.requests import EventRequest, EventTask, crashed
from workers.spans import IntakeSpans

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from bridge.settings import WorkerSettings
    from workers.guard import Run
    from workers.outcomes import Outcome
    from workers.routing import Routing

log = structlog.get_logger("workers.bootstep")


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
        self._intake: Intake | None = None

    def start(self, consumer: Any) -> None:
        """Take up the streams, or go on after the consumer was made anew."""
        if consumer.hub is None:
            raise _unfit(consumer)
        self._consumer = consumer
        if self._intake is None:
            self._intake = self._make_intake(consumer)
            signals.worker_shutdown.connect(self._close, weak=False)
        self._intake.slots = slots(consumer.pool)
        self._intake.start()
        self._bell.hang(consumer.hub)

    def stop(self, consumer: Any) -> None:
        """The consumer goes: for good at shutdown, for a moment when the broker was lost."""
        if self._intake is None:
            return
        # Celery forgets what it has not given to the pool yet, and does not say so.
        for request in [each for each in self._requests if each.forget()]:
            self._requests.discard(request)
            self._intake.put_back(request.runs)
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
                "requests": len(self._requests),
                "settled": intake.settled,
                "duplicates": intake.duplicates,
            }
        }

    def _make_intake(self, consumer: Any) -> Intake:
        settings = self.settings
        keys = Keys(settings.app_id)
        boot = f"{consumer.hostname}.{os.getpid()}.{secrets.token_hex(4)}"
        redis = sync_client(settings.redis_url)
        reader = StreamReader(redis, keys, settings.group, boot, settings.event_lease)

        def streams() -> list[str]:
            known = reader.known_types() | set(self._own_types())
            replayed = reader.replayed_types()
            return [
                *(keys.stream(name) for name in known if self._consumes(name)),
                *(keys.replay(settings.group, name) for name in replayed if self._consumes(name)),
            ]

        self._spans = IntakeSpans(
            telemetry.span_exporter(), telemetry.resource(telemetry.WORKER), settings.group
        )
        guard = Guard(redis, keys, settings.group, settings.event_lease, boot)
        log.info(
            "intake.started",
            group=settings.group,
            consumer=boot,
            queues=" ".join(sorted(consumer.app.amqp.queues.consume_from)),
            handlers=" ".join(registration.name for registration in registry.list()),
        )
        return Intake(
            reader, guard, streams, settings.event_lease, self._bell.ring, self._spans, self._died
        )

    def _own_types(self) -> set[str]:
        return {
            task.event_type
            for task in self._consumer.app.tasks.values()
            if isinstance(task, EventTask) and task.event_type
        }

    def _consumes(self, event_type: str) -> bool:
        consumer = self._consumer.task_consumer
        return consumer is not None and consumer.consuming_from(self.routing.queue_of(event_type))

    def _hand_over(self) -> None:
        intake, consumer = self._intake, self._consumer
        if intake is None or consumer.blueprint.state != bootsteps.RUN:
            return
        intake.slots = slots(consumer.pool)
        while intake.ready and (free := depth(consumer.pool) - len(self._requests)) > 0:
            self._hand(*self._next_bundle(intake.ready, free))

    def _next_bundle(self, ready: deque[Run], free: int) -> tuple[str, list[Run]]:
        waiting = len(ready)
        runs = [ready.popleft()]
        task = self._task_of(runs[0])
        # What failed once travels alone: it may be what kills the process.
        if runs[0].attempt > 1 or not self._bundled(task):
            return task, runs
        size = self._bundles.size(task, waiting, free)
        while len(runs) < size and ready[0].attempt == 1 and self._task_of(ready[0]) == task:
            runs.append(ready.popleft())
        return task, runs

    def _bundled(self, task: str) -> bool:
        consumer = self._consumer
        if getattr(consumer.pool, "runs_coroutines", False):
            return False
        # A rate limit counts requests; a revocation names one event.
        return not consumer.task_buckets[task] and not consumer.controller.state.revoked

    def _task_of(self, run: Run) -> str:
        return self.routing.task_of(run.pending.entry.event_type)

    def _hand(self, task: str, runs: list[Run]) -> None:
        take_on = self._consumer.strategies[task]
        try:
            request = take_on(runs, self._spans.context, self._finish)
        except Exception as error:
            # Whatever Celery or a signal receiver raises: no event may be held for ever.
            log.exception("request.refused", task=task, events=len(runs))
            for run in runs:
                self._end(run, crashed(run, EventTask.max_attempts, repr(error)))
            return
        if not request.ended:
            self._requests.add(request)

    def _finish(self, request: EventRequest, outcomes: Sequence[Outcome], longest: float) -> None:
        self._requests.discard(request)
        self._bundles.ran(request.task_name, longest)
        for run, outcome in zip(request.runs, outcomes, strict=False):
            self._end(run, outcome)
        if self._intake is not None:
            self._intake.put_back(request.runs[len(outcomes) :])
        self._bell.ring()

    def _end(self, run: Run, outcome: Outcome) -> None:
        if self._intake is not None:
            self._intake.end(run, outcome)

    def _died(self) -> None:
        state.should_stop = EX_FAILURE
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


def _unfit(consumer: Any) -> RuntimeError:
    return RuntimeError(
        f"the pool {type(consumer.pool).__module__} does not run on Celery's event loop;"
        " use --pool prefork, threads, solo or asyncio"
    )
