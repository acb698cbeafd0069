"""Requests: whatever Celery and its pools do, each event gets exactly one outcome."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import billiard.pool
import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.limits import TokenBucket

from flybridge.bridge.store.streams import Entry
from flybridge.workers.celery_integration import requests
from flybridge.workers.celery_integration.changes import NONE_MADE
from flybridge.workers.celery_integration.requests import EventRequest, EventTask, Strategy
from flybridge.workers.claim.claims import Pending, Run
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.run.failures import CRASH_BACKOFF_MAX, CRASHED, crashed
from flybridge.workers.run.items import item_of
from tests.waiting import until

DONE = Outcome(finished=("H",))


def process(items: Any) -> None: ...


class Stage:
    """A consumer with a pool that runs nothing, and what the intake is told."""

    def __init__(self) -> None:
        self.app = Celery(broker="memory://", set_as_current=False)
        # As in `flybridge.workers.app`.
        self.app.conf.task_acks_on_failure_or_timeout = False
        self.app.conf.task_reject_on_worker_lost = True
        self.task = self.app.task(
            process, base=EventTask, name="feishu.im", shared=False, max_attempts=3
        )
        self.controller = SimpleNamespace(state=state)
        self.event_dispatcher = None
        self.hostname = "h"
        self.task_buckets = {"feishu.im": None}
        self.on_task_message: set[Any] = set()
        self.requests: list[EventRequest] = []
        self.on_task_request = self.requests.append
        self.work: Any = None
        self.applied: list[tuple[Any, tuple[Any, ...]]] = []
        self.told: list[tuple[Sequence[Outcome], float]] = []

    def take_on(self, *attempts: int) -> EventRequest:
        runs = [
            Run(Pending("s", "1-1", entry(f"ev{number}")), f"t{number}", attempt, {}, born=2.5)
            for number, attempt in enumerate(attempts)
        ]
        return Strategy(self.task, self.app, self).take_on(
            runs, [item_of(each, "") for each in runs], self.finish
        )

    def finish(self, request: EventRequest, outcomes: Sequence[Outcome], longest: float) -> None:
        self.told.append((outcomes, longest))

    def apply_async(self, target: Any, args: tuple[Any, ...], **_: Any) -> Any:
        self.applied.append((target, args))
        return self.work


def entry(event_id: str) -> Entry:
    return Entry(event_id, "im", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")


def failure(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except BaseException:
        return ExceptionInfo()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_celery_gets_one_request_that_carries_every_event(stage):
    request = stage.take_on(1, 1)
    assert stage.requests == [request]
    request.execute_using_pool(stage)
    ((_, (name, task_id, _, (items,))),) = stage.applied
    assert (name, task_id) == ("feishu.im", "ev0")
    assert [item.event_id for item in items] == ["ev0", "ev1"]


def test_outcomes_are_handed_on_once(stage):
    request = stage.take_on(1)
    request.on_success((0, ([DONE], 0.25), 0.3))
    request.reject()
    assert stage.told == [([DONE], 0.25)]
    assert request.ended


def test_monitors_are_told_how_the_event_fared_and_not_that_the_task_returned(stage):
    sent: list[str] = []
    stage.event_dispatcher = SimpleNamespace(
        enabled=True, groups=set(), send=lambda type, **_: sent.append(type)
    )
    rejected = Outcome(failed=(Failure("H", "rejected", "no"),))
    stage.take_on(1).on_success((0, ([rejected], 0.0), 0.0))
    stage.take_on(1).on_failure(failure(WorkerLostError("signal 9")))
    assert sent == ["task-received", "task-failed", "task-received", "task-retried"]


def test_events_whose_process_died_are_tried_again_later(stage):
    request = stage.take_on(1, 2)
    request.on_failure(failure(WorkerLostError("signal 9")))
    ((outcomes, longest),) = stage.told
    assert [outcome.verdict for outcome in outcomes] == ["retry", "retry"]
    assert 0.5 <= outcomes[0].retry_after <= 1
    assert 1 <= outcomes[1].retry_after <= 2
    assert outcomes[0].error == "WorkerLostError: signal 9"
    assert longest == CRASHED


def test_a_process_that_died_of_a_change_of_handlers_costs_no_attempt_once(stage, monkeypatch):
    monkeypatch.setattr(stage.app, "changes", SimpleNamespace(behind={7, 8}, made=NONE_MADE), False)
    for pid in (7, 7, 8):
        request = stage.take_on(5)
        request.worker_pid = pid
        if pid == 8:
            request.on_success((0, ([DONE], 0.25), 0.3))
            request = stage.take_on(5)
            request.worker_pid = pid
        request.on_failure(failure(WorkerLostError("signal 9")))
    ended = [outcomes[0] for outcomes, _ in stage.told]
    assert [(each.returned, each.verdict) for each in ended] == [
        (True, "return"), (False, "dead"), (False, "done"), (False, "dead"),
    ]  # fmt: skip


def test_an_event_that_killed_its_process_too_often_is_a_crash_loop(stage):
    request = stage.take_on(3)
    request.on_failure(failure(WorkerLostError("signal 9")))
    (((outcome,), _),) = stage.told
    assert outcome.verdict == "dead"
    assert outcome.failed[0].reason == "crash_loop"
    assert "signal 9" in outcome.failed[0].error


def test_an_event_past_the_hard_time_limit_is_tried_again(stage):
    request = stage.take_on(1)
    request.on_timeout(soft=False, timeout=40)
    (((outcome,), _),) = stage.told
    assert outcome.retry_after is not None
    assert outcome.error == "TimeLimitExceeded: no outcome within 40 s"


def test_a_child_that_was_killed_at_the_hard_time_limit_is_said_to_be(stage):
    request = stage.take_on(3)
    request.on_failure(failure(TimeLimitExceeded(40)))
    (((outcome,), _),) = stage.told
    assert outcome.failed[0].error == "TimeLimitExceeded: no outcome within 40 s"


@pytest.mark.parametrize("first", ["failure", "timeout"])
def test_an_attempt_whose_child_is_to_be_killed_ends_when_that_is_dead(stage, first):
    """Billiard says so before it kills; and Celery hears of it twice."""
    request = stage.take_on(3)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    request.on_accepted(child.pid, time.monotonic())
    try:
        if first == "failure":
            request.on_failure(failure(TimeLimitExceeded(40)))
        request.on_timeout(soft=False, timeout=40)
        assert stage.told == []
    finally:
        child.kill()
    until(lambda: stage.told)
    (((outcome,), _),) = stage.told
    assert outcome.failed[0].error == "TimeLimitExceeded: no outcome within 40 s"
    child.communicate()


def test_an_attempt_whose_child_is_found_dead_while_celery_tells_again_ends(stage, monkeypatch):
    found_dead: list[Callable[[], None]] = []
    monkeypatch.setattr(requests, "_when_dead", lambda pid, answer: found_dead.append(answer))
    monkeypatch.setattr(Request, "on_timeout", lambda *_: found_dead[0]())
    request = stage.take_on(3)
    request.on_accepted(1, time.monotonic())
    request.on_failure(failure(TimeLimitExceeded(40)))
    assert stage.told == []
    request.on_timeout(soft=False, timeout=40)
    (((outcome,), _),) = stage.told
    assert outcome.failed[0].reason == "crash_loop"


def test_the_last_words_of_a_child_are_what_its_request_came_to(stage):
    request = stage.take_on(1, 1)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    request.on_accepted(child.pid, time.monotonic())
    request.on_last_words([DONE], 60.0)
    assert child.wait(10) == -signal.SIGKILL
    child.communicate()
    request.on_failure(failure(WorkerLostError("signal 9")))
    assert stage.told == [([DONE], 60.0)]


def test_a_revoked_attempt_ends_when_its_pool_says_so(stage):
    stage.work = SimpleNamespace()
    request = stage.take_on(1)
    request.execute_using_pool(stage)
    request.on_accepted(1, time.monotonic())
    request.acknowledge()
    assert stage.told == []
    request.on_failure(failure(WorkerLostError("signal 15")))
    (((outcome,), _),) = stage.told
    assert outcome.failed[0].reason == "revoked"


def test_celery_does_not_hold_a_request_back_for_a_rate_limit(stage):
    # The intake has kept it already, and would count the request as given to the pool.
    stage.task_buckets["feishu.im"] = TokenBucket(1 / 3600)
    assert [stage.take_on(1), stage.take_on(1)] == stage.requests


def test_the_pool_is_told_how_old_an_event_is(stage):
    request = stage.take_on(1)
    request.execute_using_pool(stage)
    ((_, (*_, (items,))),) = stage.applied
    assert items[0].born == request.runs[0].born == 2.5


def test_a_soft_time_limit_leaves_the_outcome_to_the_handler(stage):
    request = stage.take_on(1)
    request.on_timeout(soft=True, timeout=30)
    assert stage.told == []


def test_an_event_that_an_operator_revoked_becomes_a_dead_letter(stage):
    state.revoked.add("ev0")
    try:
        request = stage.take_on(1)
    finally:
        state.revoked.discard("ev0")
    (((outcome,), _),) = stage.told
    assert outcome.failed[0].reason == "revoked"
    assert request.ended
    assert stage.requests == []


def test_a_request_revoked_while_it_waited_does_not_run(stage):
    request = stage.take_on(1)
    state.revoked.add("ev0")
    try:
        with pytest.raises(TaskRevokedError):
            request.execute_using_pool(stage)
    finally:
        state.revoked.discard("ev0")
    assert stage.applied == []
    assert stage.told[0][0][0].failed[0].reason == "revoked"


def test_what_the_pool_has_not_been_given_can_be_forgotten(stage):
    request = stage.take_on(1)
    assert request.forget()
    request.reject()
    assert stage.told == []


def in_a_thread(*, begun: bool) -> Any:
    future: Future[None] = Future()
    if begun:
        future.set_running_or_notify_cancel()
    return SimpleNamespace(f=future)


def in_a_child(*, sent: bool, accepted: bool = False, alive: bool = True) -> Any:
    work = billiard.pool.ApplyResult({}, None)
    work._accepted = accepted
    work._write_to = SimpleNamespace(_is_alive=lambda: alive) if sent else None
    return work


@pytest.mark.parametrize(
    ("work", "forgotten"),
    [
        (in_a_thread(begun=False), True),
        (in_a_thread(begun=True), False),
        (in_a_child(sent=False), True),
        (in_a_child(sent=True), False),
        (in_a_child(sent=True, accepted=True), False),
        (in_a_child(sent=True, accepted=True, alive=False), False),
        (in_a_child(sent=True, alive=False), True),
        (None, False),
    ],
)
def test_what_the_pool_has_is_forgotten_only_if_it_cannot_have_begun(stage, work, forgotten):
    request = stage.take_on(1)
    stage.work = work
    request.execute_using_pool(stage)
    assert request.forget() is forgotten
    request.reject()
    assert bool(stage.told) is not forgotten


def test_a_pool_remembers_what_it_dropped_although_a_child_runs_it(stage):
    request = stage.take_on(1)
    stage.work = in_a_child(sent=True)
    request.execute_using_pool(stage)
    stage.work.discard()  # what the prefork pool does when the broker is lost
    assert not request.forget()
    assert stage.work._cache == {stage.work._job: stage.work}


def test_the_wait_after_a_crash_has_an_end():
    late = Run(Pending("s", "1-1", entry("ev")), "t", 400, {})
    outcome = crashed(late, 1000, "signal 9")
    assert outcome.retry_after is not None
    assert outcome.retry_after <= CRASH_BACKOFF_MAX
