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

from bridge import telemetry
from bridge.streams import Keys
from handlers.registry import registry
from workers.bell import Bell
from workers.guard import Guard
from workers.intake import BLOCK, Intake
from workers.outcomes import Outcome
from workers.reader import StreamReader
from workers.redis_client import connect
from workers.requests import EventRequest, EventTask, crash_delay
from workers.spans import IntakeSpans

if TYPE_CHECKING:
    from bridge.settings import WorkerSettings
    from workers.guard import Run
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
        self._handed: dict[str, EventRequest | None] = {}
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
        forgotten = [each for each in self._handed.values() if each and each.forget()]
        for request in forgotten:
            self._handed.pop(request.run.token)
        self._intake.put_back(request.run for request in forgotten)
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
                "handed": len(self._handed),
                "settled": intake.settled,
                "duplicates": intake.duplicates,
            }
        }

    def _make_intake(self, consumer: Any) -> Intake:
        settings = self.settings
        keys = Keys(settings.app_id)
        boot = f"{consumer.hostname}.{os.getpid()}.{secrets.token_hex(4)}"
        redis = connect(settings.redis_url, block=BLOCK)
        reader = StreamReader(redis, keys, settings.group, boot, settings.event_lease)

        def streams() -> list[str]:
            known = reader.known_types() | set(self._own_types())
            return [keys.stream(name) for name in known if self._consumes(name)]

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
        return Intake(reader, guard, streams, settings.event_lease, self._bell.ring, self._spans)

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
        for run in intake.take(2 * intake.slots - len(self._handed)):
            self._hand(run)

    def _hand(self, run: Run) -> None:
        self._handed[run.token] = None
        task = self.routing.task_of(run.pending.entry.event_type)
        take_on = self._consumer.strategies[task]
        try:
            request = take_on(run, self._spans.context(run), self._finish)
        except Exception as error:
            # Whatever Celery or a signal receiver raises: the event must not be held for ever.
            log.exception("request.refused", event_id=run.pending.entry.event_id, task=task)
            after = crash_delay(run.attempt)
            self._finish(run, Outcome(retry_after=after, error=f"{type(error).__name__}: {error}"))
            return
        # It may have ended already: a solo pool runs it on the spot.
        if run.token in self._handed:
            self._handed[run.token] = request

    def _finish(self, run: Run, outcome: Outcome) -> None:
        self._handed.pop(run.token, None)
        intake = self._intake
        if intake is not None:
            intake.end(run, outcome)
            self._bell.ring()

    def _close(self, **_: Any) -> None:
        if self._intake is not None:
            self._intake.close()


def slots(pool: Any) -> int:
    """How many events a pool runs at once."""
    return max(1, int(pool.num_processes))


def _unfit(consumer: Any) -> RuntimeError:
    return RuntimeError(
        f"the pool {type(consumer.pool).__module__} does not run on Celery's event loop;"
        " use --pool prefork, threads, solo or asyncio"
    )
