"""The Celery bootstep that owns the intake, and what hands its events to the pool.

It decides nothing; it translates between Celery's consumer, which is made anew after each loss of
the broker, and the intake, which lives as long as the worker.
"""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps, signals
from celery.platforms import EX_FAILURE
from celery.worker import state

from bridge import telemetry
from bridge.logs import Redactor
from bridge.redis_client import sync_client
from bridge.streams import Keys
from handlers.registry import registry
from workers import poison
from workers.guard import Guard
from workers.handover import HandOver, slots
from workers.intake import Intake
from workers.reader import StreamReader
from workers.requests import EventTask
from workers.spans import IntakeSpans

if TYPE_CHECKING:
    from bridge.settings import WorkerSettings
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
        self._pool = HandOver(self.routing, consumer)
        self._intake: Intake | None = None

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
        self._intake.slots = slots(consumer.pool)
        self._intake.start()
        self._pool.resume(consumer)

    def stop(self, consumer: Any) -> None:
        """The consumer goes: for good at shutdown, for a moment when the broker was lost."""
        if self._intake is None:
            return
        self._pool.recall()
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
                "parked": self._pool.waiting.limits.parked,
                "requests": self._pool.requests,
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

        spans = IntakeSpans(
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
        log.info(
            "intake.started",
            group=settings.group,
            consumer=boot,
            queues=" ".join(sorted(consumer.app.amqp.queues.consume_from)),
            handlers=" ".join(registration.name for registration in registry.list()),
        )
        intake = Intake(
            reader,
            guard,
            streams,
            settings.event_lease,
            self._pool.waiting,
            self._pool.ring,
            spans,
            self._died,
            disconnect,
        )
        isolate = partial(poison.isolate, redis, keys, settings.group)
        self._pool.begin(intake, spans.context, isolate)
        return intake

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

    def _died(self) -> None:
        state.should_stop = EX_FAILURE
        self._pool.ring()

    def _wake(self, **_: Any) -> None:
        self._pool.ring()

    def _close(self, **_: Any) -> None:
        if self._intake is not None:
            self._intake.close()


def _unfit(consumer: Any) -> RuntimeError:
    return RuntimeError(
        f"the pool {type(consumer.pool).__module__} does not run on Celery's event loop;"
        " use --pool prefork, threads, solo or asyncio"
    )
