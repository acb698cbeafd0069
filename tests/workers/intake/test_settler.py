"""The settler: what ended is recorded in bulk, and what follows from that."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import Entry
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.claim.claims import Pending, Run, Settlement
from flybridge.workers.claim.outcomes import UNHANDLED, Failure, Outcome
from flybridge.workers.intake.held import Held
from flybridge.workers.intake.outages import Outages
from flybridge.workers.intake.settler import Settler
from flybridge.workers.intake.spans import IntakeSpans
from tests.workers.tasks import tasks

DONE = Outcome(finished=("H",))


def run(event_id: str, *, line: str = "", crashes: int = 0) -> Run:
    entry = Entry(event_id, "im", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Run(Pending("events:im", f"{event_id}-0", entry, line), event_id, 1, {}, crashes)


class Stage:
    """A settler whose guard notes what it is told to record."""

    dead_letters, displaced = "dead", 0

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str]] = []
        self.woken = 0
        self.waiting = Waiting(tasks(), tasks(shares_process=True))
        self.held = Held(self.waiting)
        complete = threading.Event()
        played: Any = SimpleNamespace(make_groups_again=lambda: None)
        self.settler = Settler(
            self,  # type: ignore[arg-type]
            self.held,
            Outages(played, lambda: None, complete, 0.0),
            IntakeSpans(None, Resource.create(), "workers"),
            self.waiting,
            self.wake,
            complete,
        )

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self.recorded += [(each.run.token, each.outcome.verdict) for each in settlements]
        return [True for _ in settlements]

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_what_ended_meanwhile_is_recorded_in_one_go_and_held_no_more(stage):
    runs = [run("a"), run("b"), run("back")]
    stage.held.add(runs, 0.0)
    stage.settler.end(runs[0], DONE)
    stage.settler.end(runs[1], Outcome(retry_after=1.0))
    stage.settler.give_back(runs[2:])
    assert stage.settler.unsettled == 3
    assert not stage.settler.settle_next()
    assert stage.recorded == [("a", "done"), ("b", "retry"), ("back", "return")]
    assert (stage.settler.unsettled, stage.settler.settled, len(stage.held)) == (0, 3, 0)


def test_the_next_of_a_line_may_be_due_once_its_first_is_settled_or_acknowledged(stage):
    stage.settler.end(run("first", line="line"), DONE)
    assert stage.settler.settle_next()
    stage.settler.end(run("other"), DONE)
    assert not stage.settler.settle_next()
    stage.settler.lines_moved()
    assert stage.settler.settle_next()


def test_a_suspect_is_looked_at_again_when_what_ran_beside_it_is_settled(stage):
    stage.settler.end(run("a"), DONE)
    stage.settler.settle_next()
    assert stage.woken == 0
    stage.waiting.add([run("suspect", crashes=2)])
    stage.settler.end(run("b"), DONE)
    stage.settler.settle_next()
    assert stage.woken == 1


def test_closed_it_settles_what_ended_and_then_what_is_held_as_cut_off(stage):
    ended, hangs = run("ended"), run("hangs")
    stage.held.add([ended, hangs], 0.0)
    stage.settler.end(ended, DONE)
    stage.settler.close()
    assert not stage.settler.is_complete
    stage.settler.settle_next()
    assert stage.settler.is_complete
    stage.settler.settle_held()
    assert stage.recorded == [("ended", "done"), ("hangs", "retry")]


def test_a_dead_letter_is_told_of_but_for_the_many_that_nobody_handles(stage):
    stage.settler.end(run("a"), Outcome(failed=(Failure("H", "rejected", "no"),)))
    stage.settler.end(run("b"), Outcome(failed=(Failure("", UNHANDLED, "no handler"),)))
    with capture_logs() as logs:
        stage.settler.settle_next()
    told = [each for each in logs if each["log_level"] != "debug"]
    assert [(each["event"], each.get("event_id")) for each in told] == [
        ("event.dead", "a"),
        ("events.unhandled", None),
    ]
