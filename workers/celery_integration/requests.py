"""Claimed events as a Celery request: goes into the pool and comes back with its outcomes.

Everything here that touches Celery beyond its documentation is named in
`tests/workers/test_celery_contract.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

import billiard.pool
import celery
from celery import current_app, signals
from celery.app.trace import trace_task
from celery.exceptions import InvalidTaskError, TaskRevokedError, TimeLimitExceeded
from celery.worker.request import Request
from celery.worker.state import task_ready, task_reserved

from flybridge.handlers.errors import HandlerError
from flybridge.handlers.loggers import get_logger
from flybridge.workers.celery_integration import child, monitoring
from flybridge.workers.celery_integration.changes import NONE_MADE, Made
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.run.failures import CRASHED, crashed, describe, overdue
from flybridge.workers.run.watch import here

if TYPE_CHECKING:
    from flybridge.workers.celery_integration.changes import Changes
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.dispatch.pool_protocol import Finish
    from flybridge.workers.run.items import Item

log = get_logger(__name__)

BEHIND = Outcome(retry_after=0.0, error="its process ended at a change of handlers", returned=True)
"""Of an event whose process could not take up a change of handlers."""


class EventTask(celery.Task):
    """The task of one event type; the dispatcher makes its arguments, not `delay`."""

    abstract = True
    Strategy = "flybridge.workers.celery_integration.requests:Strategy"
    acks_late = True
    reject_on_worker_lost = True
    # Failure and timeout go to `EventRequest.reject`: a retry or a dead letter.
    acks_on_failure = acks_on_timeout = False
    ignore_result = True
    store_errors_even_if_ignored = False
    event_type = ""
    """Empty for the task of all types without one of their own."""
    max_attempts = 5
    """The highest of its handlers'; what the process' death is counted against."""

    run_async: Callable[..., Any]
    """The coroutine that the asyncio pool runs in place of the task's body."""


class EventRequest(Request):
    """One attempt at one event, or at each of a few, in the hands of the pool."""

    def __init__(
        self,
        runs: Sequence[Run],
        items: Sequence[Item],
        finish: Finish,
        consumer: Any,
        task: EventTask,
    ) -> None:
        entry = runs[0].pending.entry
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
            body=((list(items),), {}, None),
            decoded=True,
        )
        self.runs = runs
        self._finish: Finish | None = finish
        self._given = False
        self._work: Any = None
        self._error = ""
        self._revoked = False
        self._dying = self._awaited = False
        self._last_words: tuple[Sequence[Outcome], float] | None = None

    @property
    def ended(self) -> bool:
        """Its outcomes have been handed on."""
        return self._finish is None

    @property
    def is_running(self) -> bool:
        """The pool has begun it."""
        return self.time_start is not None and not self.ended

    @property
    def passed_over(self) -> bool:
        """The pool would have begun it by now, had it not been taken back; only asyncio's tells."""
        return bool(getattr(self._work, "passed_over", False))

    def take_back(self) -> bool:
        """Give it up unless it has begun; callable from any thread. Prefork gives nothing back."""
        work = self._work
        if isinstance(work, billiard.pool.ApplyResult) or not self._given or work is None:
            return False
        given_up = self.forget()
        if given_up:
            task_ready(self)
        return given_up

    def forget(self) -> bool:
        """Give it up unless it has begun; True if nobody runs it now."""
        if self._given and not _taken_back(self._work):
            return False
        self._finish = None
        return True

    def abandon(self) -> None:
        """Give it up, begun or not: its outcomes are ignored."""
        self._finish = None

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Run in the pool. Celery calls this when a slot is free."""
        if self.revoked():
            raise TaskRevokedError(self.id)
        self._given = True
        task, arguments = self._task, self._args
        runs_coroutines = getattr(pool, "runs_coroutines", False)
        if runs_coroutines:
            target, args = task.run_async, arguments
        else:
            target, args = trace_event, (task.name, self.id, self._request_dict, arguments)
            made = made_of(self._app)
            # For a child that was forked before; the process itself is up to date.
            if made.revision:
                args = (*args, made)
        self._work = work = pool.apply_async(
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
        if runs_coroutines:
            # What a revocation terminates; in prefork it ends the process instead.
            self._apply_result = ref(work)
        return work

    def on_last_words(self, outcomes: Sequence[Outcome], longest: float) -> None:
        """Kill its child, which has sent the outcomes of its events as its last message."""
        self._last_words = outcomes, longest
        if self.worker_pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)

    def send_event(self, type: str, **fields: Any) -> None:  # Celery's signature
        """Send Celery's events, except those that say how the task ended; see `_tell`."""
        if type not in monitoring.ENDINGS:
            super().send_event(type, **fields)

    def on_success(self, failed__retval__runtime: tuple[int, Any, float], **_: Any) -> None:
        """The task returned the outcomes of its events."""
        failed, result = failed__retval__runtime[:2]
        if failed:
            self.on_failure(result, return_ok=True)
            return
        task_ready(self, successful=True)
        # The child has followed the change, or it would have died.
        _behind(self._app).discard(self.worker_pid)
        self._end(*result)

    def on_failure(self, exc_info: Any, **options: Any) -> None:
        """The attempt ended without an outcome: the child died, or was stopped."""
        # billiard wraps some, to carry their tracebacks.
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        self._error = f"{type(error).__name__}: {error}"
        if isinstance(error, TimeLimitExceeded):
            self._error = overdue(*error.args)
        # Billiard reports these before the child is dead.
        self._dying = isinstance(error, TimeLimitExceeded | SystemExit | KeyboardInterrupt)
        super().on_failure(exc_info, **options)
        self._reject_when_dead()

    def on_timeout(self, soft: bool, timeout: float) -> None:  # Celery's signature
        """The time limit has passed; at the hard one the pool kills the child."""
        self._error = overdue(timeout)
        self._dying = not soft
        # A child counts its own, where nobody asks.
        here().counts.overruns += soft
        super().on_timeout(soft, timeout)
        if not soft:
            self._reject_when_dead()

    def acknowledge(self) -> None:
        """Celery gives the request up without an outcome: an operator revoked it.

        What has begun may go on for a while: then the pool says when it has ended.
        """
        self._revoked = True
        if self.time_start is None or self._work is None:
            self.reject()

    def reject(self, requeue: bool = False) -> None:  # Celery's signature
        """Celery saw the attempt fail without an outcome."""
        if not self._dying:
            self._end_without_outcome()

    def _end_without_outcome(self) -> None:
        if self._revoked:
            revoked = Outcome(failed=(Failure("", "revoked", "revoked by an operator"),))
            self._end([revoked] * len(self.runs))
        elif self.worker_pid in _behind(self._app):
            _behind(self._app).discard(self.worker_pid)
            self._end([BEHIND] * len(self.runs), 0.0)
        elif self._last_words is not None:
            self._end(*self._last_words)
        else:
            error = self._error or "rejected by Celery"
            most, alone = self._task.max_attempts, len(self.runs) == 1
            self._end([crashed(run, most, error, alone=alone) for run in self.runs])

    def _reject_when_dead(self) -> None:
        """Reject it when its child is dead: until then handlers may run there."""
        dying, self._dying = self._dying, False
        if not (dying and self.worker_pid is not None):
            self.reject()
        elif not self._awaited:
            # Celery tells of a hard time limit twice.
            self._awaited = True
            # Not `reject`: that does nothing while Celery tells the second time.
            _when_dead(self.worker_pid, self._end_without_outcome)

    def _end(self, outcomes: Sequence[Outcome], longest: float = CRASHED) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self, outcomes, longest)
            self._tell(outcomes)

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        if monitoring.are_told(self._eventer):
            seconds = time.time() - self.time_start if self.time_start else 0.0
            name, fields = monitoring.ending(outcomes, seconds)
            super().send_event(name, **fields)


class _NoMessage:
    """Takes the place of the broker's message, for there is none."""

    delivery_info: dict[str, Any] = {}  # noqa: RUF012  # read only
    properties: dict[str, Any] = {}  # noqa: RUF012  # read only


def _when_dead(pid: int, answer: Callable[[], None]) -> None:
    """Call `answer`, in a thread, when this child is dead; the pool reaps it."""

    def wait() -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        answer()

    threading.Thread(target=wait, name="flybridge-child-end", daemon=True).start()


def _taken_back(work: Any) -> bool:
    """Take what a pool returned out of its queue; False if it has begun, or may have.

    When the broker is lost, the prefork pool drops whatever it does not know to have begun. What
    a child has been sent runs all the same, so the pool must remember it to see its outcome.
    """
    if hasattr(work, "f"):  # the future of the threads pool
        return bool(work.f.cancel())
    if hasattr(work, "take_back"):  # of our asyncio pool
        return bool(work.take_back())
    if not isinstance(work, billiard.pool.ApplyResult) or work.accepted():
        return False
    child = work._write_to
    if child is not None and child._is_alive():
        work._cache[work._job] = work
        return False
    work.discard()
    return True


def trace_event(
    name: str,
    task_id: str,
    request: dict[str, Any],
    args: tuple[Any, ...],
    made: Made = NONE_MADE,
) -> Any:
    """Run a task under Celery's tracer, in the pool; unlike Celery's own, return its very value."""
    _follow(made)
    this = child.here()
    with this.at(task_id) if this is not None else nullcontext():
        result, info, runtime, _ = trace_task(
            current_app.tasks[name], task_id, args, {}, request, app=current_app
        )
    return (1, result, runtime) if info else (0, result, runtime)


def made_of(app: Any) -> Made:
    """The changes to the handlers that this process has made."""
    changes: Changes | None = getattr(app, "changes", None)
    return changes.made if changes is not None else NONE_MADE


def _behind(app: Any) -> set[int]:
    """The pool's children that may not have followed the changes of this process."""
    changes: Changes | None = getattr(app, "changes", None)
    return changes.behind if changes is not None else set()


def _follow(made: Made) -> None:
    """Make the changes of the worker's main process; a child that cannot ends, and is replaced."""
    if made.revision <= made_of(current_app).revision:
        return
    try:
        current_app.changes.follow(made)
    except HandlerError as error:
        log.warning("change.failed", revision=made.revision, error=describe(error),
                    hint="this child ends, and a new one takes its place; its events are tried "
                    "again and not counted")  # fmt: skip
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(os.EX_TEMPFAIL)


class Strategy:
    """Celery's hook by which a worker takes on requests of one task."""

    def __init__(self, task: EventTask, app: Any, consumer: Any) -> None:
        self._task = task
        self._consumer = consumer

    def __call__(self, *message: Any) -> None:
        """A message of Celery's broker bears the task's name.

        Raises:
            InvalidTaskError: always; Celery's consumer rejects the message then.
        """
        raise InvalidTaskError(
            "events come from their streams, never by Celery's broker;"
            " `flybridge trigger` pushes one to a local Feishu, `flybridge replay` brings one back"
        )

    def take_on(self, runs: Sequence[Run], items: Sequence[Item], finish: Finish) -> EventRequest:
        """Make a request of claimed events, and have Celery see to it."""
        consumer = self._consumer
        request = EventRequest(runs, items, finish, consumer, self._task)
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
