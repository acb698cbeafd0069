"""The hand-over: what the pool gets and when, and what is taken back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from kombu.utils.limits import TokenBucket
from opentelemetry.sdk.resources import Resource
from redis.exceptions import ConnectionError as RedisConnectionError

from flybridge.bridge.store.streams import Entry
from flybridge.handlers import Registry
from flybridge.workers.backlog.limits import MAX_PARKED
from flybridge.workers.backlog.quarantine import SLOW_TURN
from flybridge.workers.backlog.suspects import DRAIN
from flybridge.workers.backlog.suspects import MAX_SUSPECTS as SUSPECTS
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.celery_integration.pool import CeleryPool
from flybridge.workers.claim.claims import Pending, Run
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.dispatch.bundles import BUNDLE_SECONDS
from flybridge.workers.dispatch.dispatcher import Dispatcher
from flybridge.workers.intake.spans import IntakeSpans
from flybridge.workers.routes.routing import Routing

DONE = Outcome(finished=("H",))
IM, CONTACT = "im.message.receive_v1", "contact.user.created_v3"
LIMITED, ONCE = "im.chat.updated_v1", "im.message.recalled_v1"
"""One at once; one attempt only."""


def run(event_id: str, event_type: str = IM, attempt: int = 1, crashes: int = 0) -> Run:
    entry = Entry(event_id, event_type, "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Run(Pending("s", f"{event_id}-0", entry), event_id, attempt, {}, crashes)


class Request:
    def __init__(self, task: str, runs: Sequence[Run], finish: Callable[..., None]) -> None:
        self.task_name, self.runs, self.ended = task, runs, False
        self.waits = False
        """Celery has not given it to the pool."""
        self.is_running = self.passed_over = self.unbegun = False
        self._finish = finish

    def forget(self) -> bool:
        return self.waits

    def take_back(self) -> bool:
        return self.unbegun

    def finish(self, outcomes: Sequence[Outcome], longest: float) -> None:
        self.ended = True
        self._finish(self, outcomes, longest)


class Intake:
    """What is held, and what settles it."""

    slots = 1
    paused = False

    def __init__(self) -> None:
        self.doubtful: set[str] = set()
        self.unsettled = 0
        self.given_back: list[str] = []
        self.ends: list[tuple[str, Outcome]] = []

    def ours(self, run: Run) -> bool:
        return run.token not in self.doubtful

    def give_back(self, runs: Sequence[Run], after: float = 0.0) -> None:
        self.given_back += [run.token for run in runs]

    def end(self, run: Run, outcome: Outcome) -> None:
        self.ends.append((run.token, outcome))


class Alarm:
    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self.seconds, self.ring, self.canceled = seconds, ring, False

    def cancel(self) -> None:
        self.canceled = True


class Stage:
    """Between a consumer of two slots and an intake, both played."""

    def __init__(self) -> None:
        registry = Registry()
        registry.register(lambda event, context: None, IM, CONTACT, name="plain")
        registry.register(lambda event, context: None, LIMITED, name="limited", concurrency=1)
        registry.register(lambda event, context: None, ONCE, name="once", max_attempts=1)
        self.alarms: list[Alarm] = []
        self.isolated: list[str] = []
        self.alone_before = 0
        self.redis_is_asked = False
        self.redis_fails = False
        self.requests: list[Request] = []
        self.intake = Intake()
        routing = Routing.of(registry)
        self.consumer = SimpleNamespace(
            blueprint=SimpleNamespace(state=bootsteps.RUN),
            controller=SimpleNamespace(
                state=SimpleNamespace(revoked=set()),
                blueprint=SimpleNamespace(state=bootsteps.RUN),
            ),
            pool=SimpleNamespace(num_processes=2, uses_semaphore=True),
            disable_rate_limits=False,
            event_dispatcher=None,
            timer=self,
            strategies={task: self.strategy(task) for task in routing.routes},
            task_buckets=dict.fromkeys(routing.routes),
        )
        self.port = CeleryPool(self.consumer)
        self.later = 0.0
        """Seconds by which suspects have waited longer than it took."""
        self.waiting = Waiting(routing, self.port, lambda: time.monotonic() + self.later)
        played: Any = self.intake
        spans = IntakeSpans(None, Resource.create(), "workers")
        self.pool = Dispatcher(
            routing, self.port, self.waiting, played, played, spans, self.isolate
        )

    def call_after(self, seconds: float, ring: Callable[[], None]) -> Alarm:
        self.alarms.append(Alarm(seconds, ring))
        return self.alarms[-1]

    def isolate(self, run: Run) -> int | None:
        if self.redis_is_asked:
            return None
        if self.redis_fails:
            raise RedisConnectionError("gone")
        self.isolated.append(run.token)
        return self.alone_before

    def share_a_process(self) -> None:
        self.consumer.pool.uses_semaphore = False

    def strategy(self, task: str) -> SimpleNamespace:
        def take_on(runs: Sequence[Run], items: Any, finish: Callable[..., None]) -> Request:
            request = Request(task, runs, finish)
            self.requests.append(request)
            return request

        return SimpleNamespace(take_on=take_on)

    def take_on_by(self, take_on: Callable[..., Any]) -> None:
        every = SimpleNamespace(take_on=take_on)
        self.consumer.strategies = dict.fromkeys(self.consumer.strategies, every)

    def hand_over(self, *runs: Run) -> list[list[str]]:
        """What the pool gets when these are ready: the tokens of each request."""
        self.waiting.add(runs)
        before = len(self.requests)
        self.pool.dispatch()
        return [[each.token for each in request.runs] for request in self.requests[before:]]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def quick(stage: Stage) -> Stage:
    """Handlers of both types have been seen to be quick."""
    stage.hand_over(run("a"), run("b", CONTACT))
    for request in stage.requests:
        request.finish([DONE], 0.0001)
    stage.intake.ends.clear()
    return stage


def test_the_pool_gets_twice_what_it_runs_at_once_and_no_more(stage):
    assert stage.hand_over(*(run(f"ev{n}") for n in range(9))) == [
        ["ev0"],
        ["ev1"],
        ["ev2"],
        ["ev3"],
    ]
    stage.requests[1].finish([DONE], 1.0)
    assert stage.intake.ends == [("ev1", DONE)]
    assert stage.hand_over() == [["ev4"]]


def test_quick_events_travel_together(quick):
    requests = quick.hand_over(*(run(f"ev{n}") for n in range(12)))
    assert [len(tokens) for tokens in requests] == [3, 3, 3, 3]


def test_events_of_different_tasks_never_do(quick):
    runs = [run(f"{n}-{kind}", kind) for n in range(3) for kind in (IM, IM, IM, CONTACT)]
    quick.hand_over(*runs)
    assert all(len({each.pending.entry.event_type for each in r.runs}) == 1 for r in quick.requests)


def test_what_failed_before_travels_alone(quick):
    again = [run(f"again{n}", attempt=2) for n in range(2)]
    assert quick.hand_over(*again, *(run(f"ev{n}") for n in range(30)))[:2] == [
        ["again0"],
        ["again1"],
    ]


def test_events_that_a_request_did_not_come_to_are_handed_over_again(quick):
    quick.hand_over(*(run(f"ev{n}") for n in range(12)))
    first = quick.requests[2]
    begun, *rest = [each.token for each in first.runs]
    first.finish([DONE], 2 * BUNDLE_SECONDS)
    assert quick.intake.ends == [(begun, DONE)]
    assert sorted(each.token for each in quick.waiting.ready) == rest
    assert quick.hand_over()[0][0] in rest


def test_an_event_that_celery_refuses_is_tried_again_and_not_held_for_ever(stage):
    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    stage.consumer.strategies = dict.fromkeys(
        stage.consumer.strategies, SimpleNamespace(take_on=refuse)
    )
    stage.hand_over(run("ev1"))
    ((token, outcome),) = stage.intake.ends
    assert (token, outcome.verdict) == ("ev1", "retry")
    assert "ZeroDivisionError" in outcome.error


def test_an_event_that_may_be_tried_once_travels_alone(stage):
    stage.hand_over(run("a", ONCE))
    stage.requests[0].finish([DONE], 0.0001)
    assert stage.hand_over(*(run(f"ev{n}", ONCE) for n in range(20))) == [
        ["ev0"],
        ["ev1"],
        ["ev2"],
        ["ev3"],
    ]


def test_a_limited_task_gets_one_slot_and_others_the_rest(stage):
    limited = [run(f"limited{n}", LIMITED) for n in range(3)]
    begun = stage.hand_over(*limited, *(run(f"ev{n}") for n in range(9)))
    assert sorted(begun) == [["ev0"], ["ev1"], ["ev2"], ["limited0"]]
    for request in stage.requests[:]:
        request.finish([DONE], 1.0)
        begun += stage.hand_over()
    assert sorted(begun) == [*([f"ev{n}"] for n in range(6)), ["limited0"], ["limited1"]]


def test_a_limited_task_gets_its_turn_however_many_others_wait(stage):
    stage.hand_over(*(run(f"ev{n}") for n in range(30)), run("limited", LIMITED))
    for _ in range(3):
        stage.requests[-1].finish([DONE], 1.0)
        stage.hand_over()
    assert "limited" in [each.token for request in stage.requests for each in request.runs]


def test_a_rate_that_an_operator_sets_counts_for_what_is_claimed_already(stage):
    stage.intake.slots = 1
    stage.waiting.add([run(f"ev{n}") for n in range(3)])
    stage.consumer.task_buckets[f"feishu.{IM}"] = TokenBucket(10)
    assert sorted(stage.hand_over(run("free", CONTACT))) == [["ev0"], ["free"]]
    (alarm,) = stage.alarms
    assert 0 < alarm.seconds <= 0.1
    assert stage.waiting.limits.parked == 2
    stage.consumer.task_buckets[f"feishu.{IM}"] = None
    alarm.ring()
    assert [each.token for request in stage.requests[2:] for each in request.runs] == ["ev1", "ev2"]


def test_one_alarm_is_set_at_a_time_and_the_sooner_one_counts(stage):
    stage.consumer.task_buckets[f"feishu.{IM}"] = slow = TokenBucket(2)
    stage.hand_over(run("a"), run("b"))
    stage.hand_over()
    (first,) = stage.alarms
    slow.fill_rate = 20.0
    stage.hand_over()
    assert first.canceled
    assert len(stage.alarms) == 2


def test_no_alarm_rings_while_the_pool_is_full(stage):
    stage.consumer.task_buckets[f"feishu.{IM}"] = TokenBucket(1000)
    stage.hand_over(*(run(f"ev{n}", CONTACT) for n in range(4)), run("rated"))
    assert stage.alarms == []


def test_what_is_parked_beyond_measure_is_given_back(stage):
    stage.hand_over(*(run(f"limited{n}", LIMITED) for n in range(MAX_PARKED + 3)))
    assert len(stage.intake.given_back) == 2


def test_a_suspect_has_a_shared_process_to_itself(stage):
    stage.share_a_process()
    stage.hand_over(run("a"), run("b"))
    suspects = [run(f"suspect{n}", attempt=3, crashes=2) for n in range(2)]
    assert stage.hand_over(run("c"), *suspects, run("d")) == []
    stage.requests[0].finish([DONE], 0.1)
    assert stage.hand_over() == []
    stage.requests[1].finish([DONE], 0.1)
    stage.intake.unsettled = 1
    assert stage.hand_over() == []
    stage.intake.unsettled = 0
    assert stage.hand_over() == [["suspect0"]]
    assert stage.hand_over() == []
    stage.requests[-1].finish([DONE], 0.1)
    assert stage.hand_over() == [["c"], ["d"]], "others have their turn between two suspects"
    stage.requests[-1].finish([DONE], 0.1)
    assert stage.hand_over() == []
    stage.requests[-2].finish([DONE], 0.1)
    assert stage.hand_over() == [["suspect1"]]
    assert stage.isolated == ["suspect0", "suspect1"]
    assert stage.alarms


def test_what_ends_is_in_the_way_of_a_suspect_until_it_is_settled(stage, monkeypatch):
    beside: list[int] = []
    monkeypatch.setattr(stage.intake, "end", lambda *_: beside.append(stage.pool.requests))
    stage.hand_over(run("a"))
    stage.requests[0].finish([DONE], 0.1)
    assert beside == [1]
    assert stage.pool.requests == 0


def test_others_go_on_while_a_suspect_waits_for_one_that_hangs(stage):
    stage.share_a_process()
    stage.hand_over(run("hangs"))
    suspect = run("suspect", attempt=3, crashes=2)
    assert stage.hand_over(suspect, run("other")) == []
    stage.later = DRAIN + 1
    assert stage.hand_over() == [["other"]]
    stage.requests[1].finish([DONE], 0.1)
    stage.requests[0].finish([DONE], 0.1)
    assert stage.hand_over() == [["suspect"]], "with nobody there to wait for"


def test_others_join_a_slow_suspect_that_has_attempts_left(stage):
    stage.share_a_process()
    last = run("last", attempt=5, crashes=2)
    assert stage.hand_over(run("suspect", attempt=3, crashes=2), last, run("other")) == [
        ["suspect"]
    ]
    stage.later = SLOW_TURN + 1
    assert stage.hand_over() == [["other"]]
    for request in stage.requests[:2]:
        request.finish([DONE], 0.1)
    assert stage.hand_over() == [["last"]]
    stage.later += SLOW_TURN + 1
    assert stage.hand_over(run("another")) == [], "it may be given up if it dies now"


def test_suspects_beyond_measure_are_given_back(stage):
    stage.share_a_process()
    stage.hand_over(run("a"))
    stage.hand_over(*(run(f"ev{n}", attempt=3, crashes=2) for n in range(SUSPECTS + 3)))
    assert len(stage.intake.given_back) == 3
    assert stage.waiting.uncounted == SUSPECTS


def test_in_prefork_what_crashed_before_waits_for_nobody(stage):
    crashed_before = run("again", attempt=3, crashes=2)
    assert stage.hand_over(run("a"), crashed_before) == [["a"], ["again"]]
    assert stage.isolated == []


@pytest.mark.parametrize("shares", [True, False])
def test_what_died_alone_in_its_last_attempt_is_given_up_and_does_not_run(stage, shares):
    if shares:
        stage.share_a_process()
    stage.alone_before = 5
    assert stage.hand_over(run("poison", attempt=6, crashes=5), run("ev")) == [["ev"]]
    ((token, outcome),) = stage.intake.ends
    assert (token, outcome.failed[0].reason) == ("poison", "crash_loop")


@pytest.mark.parametrize("shares", [True, False])
def test_what_lost_its_last_attempt_with_a_worker_is_heard_once_more(stage, shares):
    if shares:
        stage.share_a_process()
    assert stage.hand_over(run("innocent", attempt=6, crashes=1)) == [["innocent"]]
    assert stage.isolated == ["innocent"]


def test_a_last_hearing_waits_for_a_slot_where_it_begins_at_once(stage):
    stage.hand_over(*(run(f"ev{n}") for n in range(4)))
    innocent = run("innocent", ONCE, attempt=2, crashes=1)
    assert stage.hand_over(innocent, run("more")) == []
    for request in stage.requests[:2]:
        request.finish([DONE], 0.1)
        assert stage.hand_over() == []
    assert stage.isolated == []
    stage.requests[2].finish([DONE], 0.1)
    assert stage.hand_over() == [["innocent"]]
    assert stage.isolated == ["innocent"]
    stage.requests[3].finish([DONE], 0.1)
    assert stage.hand_over() == [["more"]]


def test_a_suspect_waits_for_redis_and_so_does_everybody_else(stage):
    stage.share_a_process()
    stage.redis_fails = True
    assert stage.hand_over(run("suspect", attempt=3, crashes=2), run("ev")) == []
    stage.redis_fails = False
    stage.alarms[-1].ring()
    assert stage.isolated == ["suspect"]


def test_a_suspect_waits_until_redis_has_said_how_it_ran_before(stage):
    stage.share_a_process()
    stage.redis_is_asked = True
    assert stage.hand_over(run("suspect", attempt=3, crashes=2), run("ev")) == []
    stage.redis_is_asked = False
    assert stage.hand_over() == [["suspect"]]
    assert stage.isolated == ["suspect"]


def test_an_event_that_another_worker_has_taken_over_is_not_begun(stage):
    stage.intake.doubtful = {"lost"}
    assert stage.hand_over(run("lost"), run("ours")) == [["ours"]]
    assert stage.intake.given_back == ["lost"]


def test_a_request_that_a_thread_ends_at_once_leaves_no_trace(stage):
    def at_once(runs: Sequence[Run], items: Any, finish: Callable[..., None]) -> Request:
        request = Request(f"feishu.{LIMITED}", runs, finish)
        request.finish([DONE], 0.1)
        return request

    stage.consumer.strategies = dict.fromkeys(
        stage.consumer.strategies, SimpleNamespace(take_on=at_once)
    )
    stage.hand_over(*(run(f"ev{n}", LIMITED) for n in range(9)))
    assert len(stage.intake.ends) == 9
    assert stage.pool.requests == 0


def test_what_waits_for_a_pool_that_stands_still_is_given_back_and_no_more_is_claimed(
    stage, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr(
        "flybridge.workers.dispatch.dispatcher.time", SimpleNamespace(monotonic=lambda: now[0])
    )
    stage.hand_over(*(run(f"ev{n}") for n in range(5)))
    for request in stage.requests:
        request.is_running = True
    for _ in range(2):
        stage.pool.relieve()
        assert (stage.intake.given_back, stage.intake.paused) == ([], False)
        now[0] += 0.9
    stage.pool.relieve()
    assert (stage.intake.given_back, stage.intake.paused) == (["ev4"], True)
    stage.requests[0].finish([DONE], 0.1)
    stage.pool.relieve()
    assert not stage.intake.paused


def test_requests_that_a_blocked_pool_has_not_begun_are_given_back(stage, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(
        "flybridge.workers.dispatch.dispatcher.time", SimpleNamespace(monotonic=lambda: now[0])
    )
    stage.hand_over(*(run(f"ev{n}") for n in range(3)))
    blocks, *others = stage.requests
    blocks.is_running = True
    for request in others:
        request.unbegun = True
    now[0] += 1.5
    stage.pool.relieve()
    assert (stage.intake.given_back, stage.intake.paused) == (["ev1", "ev2"], True)
    assert stage.pool.requests == 1
    others[0].passed_over = True
    stage.pool.relieve()
    assert not stage.intake.paused


def test_what_celery_forgets_is_handed_over_again(stage):
    stage.hand_over(*(run(f"ev{n}") for n in range(4)))
    for request in stage.requests[2:]:
        request.waits = True
    stage.pool.recall()
    assert sorted(each.token for each in stage.waiting.ready) == ["ev2", "ev3"]
    assert sorted(stage.hand_over()) == [["ev2"], ["ev3"]]


def test_a_consumer_that_goes_gets_nothing(stage):
    stage.consumer.blueprint.state = bootsteps.CLOSE
    assert stage.hand_over(run("ev1")) == []


def test_a_hub_made_anew_hangs_the_bell_again(stage):
    bells: list[Callable[[], None]] = []
    stage.consumer.hub = SimpleNamespace(add_reader=lambda _, heard: bells.append(heard))
    messages = SimpleNamespace(state_handlers={})
    stage.consumer.pool._pool = SimpleNamespace(_result_handler=messages)
    stage.port.resume(stage.consumer)
    stage.pool.resume()
    stage.waiting.add([run("ev1")])
    bells[0]()
    assert [each.token for each in stage.requests[0].runs] == ["ev1"]
