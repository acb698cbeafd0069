"""A claimed event as a Celery request: by the strategy hook into the pool, back with its outcome.

Everything here that touches Celery beyond its documentation is named in
`tests/workers/test_celery_contract.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import celery
import structlog
from celery import current_app, signals
from celery.app.trace import trace_task
from celery.exceptions import TaskRevokedError
from celery.worker.request import Request
from celery.worker.state import task_ready, task_reserved

from workers.outcomes import Failure, Outcome

if TYPE_CHECKING:
    from workers.guard import Run

log = structlog.get_logger("workers.requests")

CRASH_BACKOFF = 1.0
CRASH_BACKOFF_MAX = 60.0
"""Seconds; an attempt whose process died is tried again after 1, 2, 4, ... of them."""

Finish = Callable[["Run", Outcome], None]


class EventTask(celery.Task):
    """The task of one event type. Its argument is not made by `delay`, but by the intake."""

    abstract = True
    Strategy = "workers.requests:strategy"
    acks_late = True
    ignore_result = True
    event_type = ""
    """Empty for the task of all types without one of their own."""
    max_attempts = 5
    """The highest of its handlers'; what the process' death is counted against."""

    run_async: Callable[..., Any]
    """The coroutine that the asyncio pool runs in place of the task's body."""


class EventRequest(Request):
    """One attempt at one event, in the hands of the pool."""

    def __init__(
        self, run: Run, traceparent: str, finish: Finish, consumer: Any, task: EventTask
    ) -> None:
        entry = run.pending.entry
        trace = (traceparent, entry.tracestate)
        arguments = (entry.event_id, entry.envelope, run.attempt, run.marks, *trace)
        super().__init__(
            _NoMessage,
            app=consumer.app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=task,
            headers={
                "id": entry.event_id,
                "task": task.name,
                "argsrepr": f"<event {entry.event_type}>",
                "kwargsrepr": "{}",
                "retries": run.attempt - 1,
            },
            body=(arguments, {}, None),
            decoded=True,
        )
        self.run = run
        self._finish: Finish | None = finish
        self._given = False
        self._error = ""

    def forget(self) -> bool:
        """Give it up unless the pool has it; True if it is nobody's now."""
        if self._given:
            return False
        self._finish = None
        return True

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Run in the pool. Celery calls this when a slot is free."""
        if self.revoked():
            raise TaskRevokedError(self.id)
        self._given = True
        task, arguments = self._task, self._args
        if getattr(pool, "runs_coroutines", False):
            target, args = task.run_async, arguments
        else:
            target, args = trace_event, (task.name, self.id, self._request_dict, arguments)
        return pool.apply_async(
            target,
            args=args,
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=task.soft_time_limit,
            timeout=task.time_limit,
            correlation_id=self.id,
        )

    def on_success(self, failed__retval__runtime: tuple[int, Any, float], **_: Any) -> None:
        """The task returned: its outcome says how the handlers fared."""
        failed, result, runtime = failed__retval__runtime
        if failed:
            self.on_failure(result, return_ok=True)
            return
        task_ready(self, successful=True)
        self._end(result)
        self.send_event("task-succeeded", result=result.verdict, runtime=runtime)

    def on_failure(self, exc_info: Any, **options: Any) -> None:
        """The attempt ended without an outcome: the child died, or was stopped."""
        self._error = f"{type(exc_info.exception).__name__}: {exc_info.exception}"
        super().on_failure(exc_info, **options)
        self.reject()

    def on_timeout(self, soft: bool, timeout: float) -> None:  # Celery's signature
        """The time limit has passed; at the hard one the pool kills the child."""
        self._error = f"TimeLimitExceeded: no outcome within {timeout:g} s"
        super().on_timeout(soft, timeout)

    def acknowledge(self) -> None:
        """Celery gives the request up without an outcome: an operator revoked it."""
        self._end(Outcome(failed=(Failure("", "revoked", "revoked by an operator"),)))

    def reject(self, requeue: bool = False) -> None:  # Celery's signature
        """Celery saw the attempt fail without an outcome."""
        attempt, error = self.run.attempt, self._error or "rejected by Celery"
        if attempt >= self._task.max_attempts:
            self._end(Outcome(failed=(Failure("", "crash_loop", error),)))
            return
        self._end(Outcome(retry_after=crash_delay(attempt), error=error))

    def _end(self, outcome: Outcome) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self.run, outcome)


class _NoMessage:
    """Stands for the broker's message, of which there is none."""

    delivery_info: dict[str, Any] = {}  # noqa: RUF012  # read only
    properties: dict[str, Any] = {}  # noqa: RUF012  # read only


def crash_delay(attempt: int) -> float:
    """Seconds until an attempt that ended without an outcome is tried again; jittered."""
    longest: float = min(CRASH_BACKOFF_MAX, CRASH_BACKOFF * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing


def trace_event(name: str, task_id: str, request: dict[str, Any], args: tuple[Any, ...]) -> Any:
    """Run a task under Celery's tracer, in the pool; unlike Celery's own, return its very value."""
    result, info, runtime, _ = trace_task(
        current_app.tasks[name], task_id, args, {}, request, app=current_app
    )
    return (1, result, runtime) if info else (0, result, runtime)


def strategy(
    task: EventTask, app: Any, consumer: Any
) -> Callable[[Run, str, Finish], EventRequest]:
    """Celery's hook: how a worker takes on an event of this type."""

    def take_on(run: Run, traceparent: str, finish: Finish) -> EventRequest:
        request = EventRequest(run, traceparent, finish, consumer, task)
        if request.id in consumer.controller.state.revoked and request.revoked():
            return request
        signals.task_received.send(sender=consumer, request=request)
        request.send_event("task-received", name=request.name)
        bucket = consumer.task_buckets[task.name]
        if bucket:
            consumer._limit_task(request, bucket, 1)
            return request
        task_reserved(request)
        for callback in consumer.on_task_message:
            callback(request)
        consumer.on_task_request(request)
        return request

    return take_on
