"""The bootstep: what it hands to the pool, and what it takes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps

from bridge.streams import Entry
from handlers import Registry
from workers.bootstep import IntakeStep
from workers.bundles import SPAN
from workers.guard import Pending, Run
from workers.outcomes import Outcome
from workers.routing import Routing

DONE = Outcome(finished=("H",))
IM, CONTACT = "im.message.receive_v1", "contact.user.created_v3"


def run(event_id: str, event_type: str = IM, attempt: int = 1) -> Run:
    entry = Entry(event_id, event_type, "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Run(Pending("s", f"{event_id}-0", entry), event_id, attempt, {})


class Request:
    def __init__(self, task: str, runs: Sequence[Run], finish: Callable[..., None]) -> None:
        self.task_name, self.runs, self.ended = task, runs, False
        self.waits = False
        """Celery has not given it to the pool."""
        self._finish = finish

    def forget(self) -> bool:
        return self.waits

    def finish(self, outcomes: Sequence[Outcome], longest: float) -> None:
        self.ended = True
        self._finish(self, outcomes, longest)


class Intake:
    slots = 1

    def __init__(self) -> None:
        self.ready: deque[Run] = deque()
        self.ends: list[tuple[str, Outcome]] = []
        self.stopped = False

    def put_back(self, runs: Sequence[Run]) -> None:
        self.ready.extendleft(runs)

    def end(self, run: Run, outcome: Outcome) -> None:
        self.ends.append((run.token, outcome))

    def stop(self) -> None:
        self.stopped = True


class Stage:
    """A step between a consumer of two slots and an intake, both played."""

    def __init__(self) -> None:
        registry = Registry()
        registry.register(lambda event, context: None, IM, CONTACT)
        self.requests: list[Request] = []
        self.intake = Intake()
        routing = Routing.of(registry)
        self.consumer = SimpleNamespace(
            blueprint=SimpleNamespace(state=bootsteps.RUN),
            controller=SimpleNamespace(
                state=SimpleNamespace(revoked=set()),
                blueprint=SimpleNamespace(state=bootsteps.RUN),
            ),
            pool=SimpleNamespace(num_processes=2),
            strategies={task: self.strategy(task) for task in routing.routes},
            task_buckets=dict.fromkeys(routing.routes),
        )
        kind = type("Step", (IntakeStep,), {"routing": routing, "settings": None})
        self.step: Any = kind(self.consumer)
        self.step._intake = self.intake
        self.step._spans = SimpleNamespace(context=lambda run: "")

    def strategy(self, task: str) -> Callable[..., Request]:
        def take_on(runs: Sequence[Run], trace: Any, finish: Callable[..., None]) -> Request:
            self.requests.append(Request(task, runs, finish))
            return self.requests[-1]

        return take_on

    def hand_over(self, *runs: Run) -> list[list[str]]:
        """What the pool gets when these are ready: the tokens of each request."""
        self.intake.ready.extend(runs)
        before = len(self.requests)
        self.step._hand_over()
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
    first.finish([DONE], 2 * SPAN)
    assert quick.intake.ends == [(begun, DONE)]
    assert sorted(each.token for each in quick.intake.ready) == rest
    assert quick.hand_over()[0][0] in rest


def test_what_celery_forgets_when_the_broker_is_lost_is_handed_over_again(stage):
    stage.hand_over(*(run(f"ev{n}") for n in range(4)))
    for request in stage.requests[2:]:
        request.waits = True
    stage.step.stop(stage.consumer)
    assert sorted(each.token for each in stage.intake.ready) == ["ev2", "ev3"]
    assert not stage.intake.stopped
    assert sorted(stage.hand_over()) == [["ev2"], ["ev3"]]


def test_at_shutdown_the_intake_gets_back_what_waits_and_hands_over_no_more(stage):
    stage.hand_over(run("ev1"))
    stage.requests[0].waits = True
    stage.consumer.controller.blueprint.state = bootsteps.CLOSE
    stage.consumer.blueprint.state = bootsteps.CLOSE
    stage.step.stop(stage.consumer)
    assert [each.token for each in stage.intake.ready] == ["ev1"]
    assert stage.intake.stopped
    assert stage.hand_over() == []


def test_an_event_that_celery_refuses_is_tried_again_and_not_held_for_ever(stage):
    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    stage.consumer.strategies = dict.fromkeys(stage.consumer.strategies, refuse)
    stage.hand_over(run("ev1"))
    ((token, outcome),) = stage.intake.ends
    assert (token, outcome.verdict) == ("ev1", "retry")
    assert "ZeroDivisionError" in outcome.error


def test_a_pool_without_celerys_loop_is_refused(stage):
    stage.consumer.hub = None
    with pytest.raises(RuntimeError, match="use --pool prefork, threads, solo or asyncio"):
        stage.step.start(stage.consumer)
