"""Claimed events as a Celery request: by the strategy hook into the pool, back with its outcome.

Everything here that touches Celery beyond its documentation is named in
`tests/workers/test_celery_contract.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import billiard.pool
import celery
import structlog
from celery import current_app, signals
from celery.app.trace import trace_task
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.worker.request import Request
from celery.worker.state import task_ready, task_reserved

from workers.outcomes import Failure, Outcome

if TYPE_CHECKING:
    from workers.guard import Run

log = structlog.get_logger("workers.requests")

CRASH_BACKOFF = 1.0
CRASH_BACKOFF_MAX = 60.0
"""Seconds; an attempt whose process died is tried again after 1, 2, 4, ... of them."""

CRASHED = 60.0
"""Seconds that a run without an outcome counts as, for the bundles."""

Finish = Callable[["EventRequest", Sequence[Outcome], float], None]
"""Takes the outcomes of the request's events in order, and the seconds of the longest run."""

Trace = Callable[["Run"], str]
"""Gives the traceparent of an event's process span."""

TakeOn = Callable[[Sequence["Run"], Trace, Finish], "EventRequest"]


class Item(NamedTuple):
    """What the pool is told of one event."""

    event_id: str
    envelope: bytes
    attempt: int
    marks: Mapping[str, str]
    since: int
    """Unix ms from which the event's age counts."""
    traceparent: str
    tracestate: str


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
    """One attempt at one event, or at each of a few, in the hands of the pool."""

    def __init__(
        self, runs: Sequence[Run], trace: Trace, finish: Finish, consumer: Any, task: EventTask
    ) -> None:
        entry = runs[0].pending.entry
        items = [
            Item(
                run.pending.entry.event_id,
                run.pending.entry.envelope,
                run.attempt,
                run.marks,
                run.pending.entry.since,
                trace(run),
                run.pending.entry.tracestate,
            )
            for run in runs
        ]
        super().__init__(
            _NoMessage,
            app=consumer.app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=task,
            headers={
                "id": entry.event_id,
                "task": task.name,
                "argsrepr": f"<{entry.event_type} x {len(runs)}>",
                "kwargsrepr": "{}",
                "retries": runs[0].attempt - 1,
            },
            body=((items,), {}, None),
            decoded=True,
        )
        self.runs = runs
        self._finish: Finish | None = finish
        self._given = False
        self._work: Any = None
        self._error = ""

    @property
    def ended(self) -> bool:
        """Its outcomes have been handed on."""
        return self._finish is None

    def forget(self) -> bool:
        """Give it up unless it has begun; True if it is nobody's now."""
        if self._given and not _taken_back(self._work):
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
        self._work = pool.apply_async(
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
        return self._work

    def on_success(self, failed__retval__runtime: tuple[int, Any, float], **_: Any) -> None:
        """The task returned: its outcome says how the handlers fared."""
        failed, result, runtime = failed__retval__runtime
        if failed:
            self.on_failure(result, return_ok=True)
            return
        task_ready(self, successful=True)
        self._end(*result)
        self.send_event("task-succeeded", runtime=runtime)

    def on_failure(self, exc_info: Any, **options: Any) -> None:
        """The attempt ended without an outcome: the child died, or was stopped."""
        # billiard wraps some, to carry their tracebacks.
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        self._error = f"{type(error).__name__}: {error}"
        if isinstance(error, TimeLimitExceeded):
            self._error = _overdue(*error.args)
        super().on_failure(exc_info, **options)
        self.reject()

    def on_timeout(self, soft: bool, timeout: float) -> None:  # Celery's signature
        """The time limit has passed; at the hard one the pool kills the child."""
        self._error = _overdue(timeout)
        super().on_timeout(soft, timeout)

    def acknowledge(self) -> None:
        """Celery gives the request up without an outcome: an operator revoked it."""
        revoked = Outcome(failed=(Failure("", "revoked", "revoked by an operator"),))
        self._end([revoked] * len(self.runs))

    def reject(self, requeue: bool = False) -> None:  # Celery's signature
        """Celery saw the attempt fail without an outcome."""
        error = self._error or "rejected by Celery"
        self._end([crashed(run, self._task.max_attempts, error) for run in self.runs])

    def _end(self, outcomes: Sequence[Outcome], longest: float = CRASHED) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self, outcomes, longest)


def _overdue(seconds: float) -> str:
    return f"TimeLimitExceeded: no outcome within {seconds:g} s"


class _NoMessage:
    """Stands for the broker's message, of which there is none."""

    delivery_info: dict[str, Any] = {}  # noqa: RUF012  # read only
    properties: dict[str, Any] = {}  # noqa: RUF012  # read only


def _taken_back(work: Any) -> bool:
    """Take what a pool returned out of its queue; False if it has begun, or may have.

    When the broker is lost, the prefork pool drops whatever it does not know to have begun. What
    a child has been sent runs all the same, so the pool must remember it to see its outcome.
    """
    if hasattr(work, "f"):  # the future of the threads pool
        return bool(work.f.cancel())
    if not isinstance(work, billiard.pool.ApplyResult) or work.accepted():
        return False
    child = work._write_to
    if child is not None and child._is_alive():
        work._cache[work._job] = work
        return False
    work.discard()
    return True


def crashed(run: Run, max_attempts: int, error: str) -> Outcome:
    """What becomes of an attempt that ended without an outcome: tried again later, or given up."""
    if run.attempt >= max_attempts:
        return Outcome(failed=(Failure("", "crash_loop", error),))
    longest: float = min(CRASH_BACKOFF_MAX, CRASH_BACKOFF * 2 ** (run.attempt - 1))
    jitter = random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing
    return Outcome(retry_after=longest * jitter, error=error, crashed=True)


def trace_event(name: str, task_id: str, request: dict[str, Any], args: tuple[Any, ...]) -> Any:
    """Run a task under Celery's tracer, in the pool; unlike Celery's own, return its very value."""
    result, info, runtime, _ = trace_task(
        current_app.tasks[name], task_id, args, {}, request, app=current_app
    )
    return (1, result, runtime) if info else (0, result, runtime)


def strategy(task: EventTask, app: Any, consumer: Any) -> TakeOn:
    """Celery's hook: how a worker takes on an event of this type."""

    def take_on(runs: Sequence[Run], trace: Trace, finish: Finish) -> EventRequest:
        request = EventRequest(runs, trace, finish, consumer, task)
        if request.id in consumer.controller.state.revoked and request.revoked():
            return request
        signals.task_received.send(sender=consumer, request=request)
        request.send_event("task-received", name=request.name)
        # Its rate limit was met before: Celery would keep it from us until then.
        task_reserved(request)
        for callback in consumer.on_task_message:
            callback(request)
        consumer.on_task_request(request)
        return request

    return take_on
