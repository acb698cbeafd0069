"""The Celery bootstep that starts and stops the intake and the dispatcher with Celery's consumer.

Celery restarts its consumer after each loss of the broker; the intake lives as long as the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals
from celery.worker import state

from flybridge.bridge.errors import EXIT_SETTINGS, EXIT_TASK
from flybridge.bridge.process.signals import LEFT_TO_GIVE_BACK
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registry import registry
from flybridge.workers.celery_integration.pool import CeleryPool
from flybridge.workers.celery_integration.stray import Unread
from flybridge.workers.dispatch.assembly import Assembly, assemble, consumer_name, started
from flybridge.workers.intake.selection import Share
from flybridge.workers.run import watch

if TYPE_CHECKING:
    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.workers.routes.routing import Routing

log = get_logger(__name__)

UNREAD_PERIOD = 5.0
"""Seconds between looks for messages that nobody reads."""


class IntakeStep(bootsteps.StartStopStep):
    """Starts with Celery's task consumer; needs a pool on Celery's event loop."""

    label = "Intake"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    settings: WorkerSettings
    routing: Routing

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._consumer = consumer
        self._name = consumer_name(consumer.hostname)
        self._pool = CeleryPool(consumer)
        self._worker: Assembly | None = None
        self._unread = Unread()

    def start(self, consumer: Any) -> None:
        """Take up the streams, or go on after the consumer was made anew."""
        if consumer.hub is None:
            log.critical("worker.refused", reason=_unfit(consumer))
            raise SystemExit(EXIT_SETTINGS)
        self._consumer = consumer
        if self._worker is None:
            self._worker = self._assemble()
            signals.worker_shutdown.connect(self._close, weak=False)
            # Celery's loop looks at its orders when it wakes.
            signals.worker_shutting_down.connect(self._wake, weak=False)
        self._pool.resume(consumer)
        self._worker.held.slots = self._pool.slots
        self._worker.start(self._tell_started)
        self._worker.dispatcher.resume()
        # Celery cancels it when it makes the consumer anew.
        consumer.timer.call_repeatedly(UNREAD_PERIOD, self._look)

    def stop(self, consumer: Any) -> None:
        """The consumer goes: for good at shutdown, for a moment when the broker was lost."""
        if self._worker is None:
            return
        self._worker.dispatcher.recall()
        if consumer.controller.blueprint.state != bootsteps.RUN:
            self._worker.intake.stop()

    def abandon(self) -> None:
        """Give back all that has not ended; the process ends next. Callable from any thread."""
        if self._worker is not None:
            self._worker.abandon(LEFT_TO_GIVE_BACK)

    def info(self, consumer: Any) -> dict[str, Any]:
        """For `celery inspect stats`."""
        if self._worker is None:
            return {}
        watched = watch.here().counts
        counts = {"overruns": watched.overruns, "blocked": watched.blocked}
        return {"streams": {**self._worker.counts(), **counts}}

    def _assemble(self) -> Assembly:
        return assemble(
            self.settings,
            registry,
            self.routing,
            Share(self._queues, self._consumes),
            self._pool,
            self._name,
            self._died,
            started(self.settings),
        )

    def _tell_started(self) -> None:
        log.info(
            "intake.started",
            group=self.settings.group,
            consumer=self._name,
            queues=" ".join(sorted(self._consumer.app.amqp.queues.consume_from)),
            handlers=" ".join(registration.name for registration in registry.list()),
        )

    def _queues(self) -> list[str]:
        consumer = self._consumer.task_consumer
        return [queue.name for queue in consumer.queues] if consumer is not None else []

    def _consumes(self, queue: str) -> bool:
        consumer = self._consumer.task_consumer
        return consumer is not None and bool(consumer.consuming_from(queue))

    def _look(self) -> None:
        self._unread.look(self._consumer.task_consumer)

    def _died(self) -> None:
        state.should_stop = EXIT_TASK
        self._pool.wake()

    def _wake(self, **_: Any) -> None:
        self._pool.wake()

    def _close(self, **_: Any) -> None:
        if self._worker is not None:
            self._worker.close()


def _unfit(consumer: Any) -> str:
    return (
        f"the pool {type(consumer.pool).__module__} does not run on Celery's event loop;"
        " use --pool prefork, threads, solo or asyncio"
    )
