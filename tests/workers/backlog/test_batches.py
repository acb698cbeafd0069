from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.utils.limits import TokenBucket

from flybridge.handlers.batch import Batch
from flybridge.workers.backlog.batches import BATCHES_AHEAD, Batches
from flybridge.workers.backlog.waiting import Waiting
from tests.workers.tasks import tasks

ROWS = Batch(size=3, wait=0.5)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(name: str, event_type: str = "rows", crashes: int = 0) -> Any:
    entry = SimpleNamespace(event_type=event_type)
    pending = SimpleNamespace(entry=entry)
    return SimpleNamespace(name=name, attempt=1, crashes=crashes, pending=pending)


def names(runs: list[Any]) -> list[str]:
    return [each.name for each in runs]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def batches(clock: Clock) -> Batches:
    return Batches(tasks(batches={"rows": ROWS}), clock)


def test_events_of_other_tasks_do_not_wait(batches: Batches) -> None:
    others = batches.add([run("a"), run("b", "single")])
    assert names(others) == ["b"]
    assert batches.tasks() == ["rows"]


def test_what_may_have_killed_a_process_goes_alone(batches: Batches) -> None:
    assert names(batches.add([run("a"), run("b", crashes=1)])) == ["b"]


def test_a_full_batch_is_ready_at_once_and_the_rest_waits(batches: Batches) -> None:
    batches.add(run(name) for name in "abcd")
    assert batches.is_ready("rows")
    assert names(batches.take("rows")) == ["a", "b", "c"]
    assert not batches.is_ready("rows")
    assert batches.tasks() == ["rows"]


def test_a_batch_that_does_not_fill_is_ready_when_its_first_event_has_waited(
    batches: Batches, clock: Clock
) -> None:
    batches.add([run("a")])
    clock.now += 0.3
    batches.add([run("b")])
    assert batches.wait("rows") == pytest.approx(0.2)
    assert not batches.is_ready("rows")
    clock.now += 0.2
    assert batches.is_ready("rows")
    assert names(batches.take("rows")) == ["a", "b"]


def test_streams_are_capped_so_that_a_few_batches_wait_and_no_more(batches: Batches) -> None:
    assert (batches.room("rows"), batches.room("single")) == (BATCHES_AHEAD * 3, None)
    batches.add(run(str(number)) for number in range(5))
    assert batches.room("rows") == BATCHES_AHEAD * 3 - 5
    batches.add(run(str(number)) for number in range(5))
    assert batches.room("rows") == 0


def test_what_gathers_keeps_nobody_out_and_a_batch_that_runs_counts_as_one(
    batches: Batches,
) -> None:
    batches.add(run(name) for name in "abcd")
    assert batches.uncounted == 4
    taken = batches.take("rows")
    request = object()
    batches.began(request, len(taken))
    assert batches.uncounted == 1 + 2
    batches.ended(request)
    assert batches.uncounted == 1


def test_events_of_a_handler_that_was_taken_away_go_one_at_a_time(clock: Clock) -> None:
    known = {"rows": ROWS}
    batches = Batches(tasks(batches=known), clock)
    batches.add([run("a"), run("b")])
    known.clear()
    assert batches.is_ready("rows")
    assert names(batches.take("rows")) == ["a"]


def test_everything_can_be_taken_out(batches: Batches) -> None:
    batches.add(run(name) for name in "ab")
    assert names(batches.drain()) == ["a", "b"]
    assert batches.tasks() == []
    assert batches.uncounted == 0


def test_a_rate_limit_does_not_lift_the_bound_on_what_waits_for_its_batch() -> None:
    stream, slow = "flybridge:{app}:events:rows", TokenBucket(1.0)
    of_rows = tasks(batches={"rows": ROWS}, buckets={"rows": slow})
    waiting = Waiting(of_rows, of_rows)
    assert waiting.caps([stream]) == {stream: BATCHES_AHEAD * 3}
    waiting.batches.add(run(name) for name in "abcdef")
    assert waiting.caps([stream]) == {stream: 0}


@pytest.mark.parametrize("kind", ["batches", "limits"])
def test_types_that_share_a_stream_stop_it_when_enough_of_one_waits(kind: str) -> None:
    shared, own = "events:other", "events:single"
    of_both = tasks({"slow": 1}, {"rows": ROWS})
    waiting = Waiting(of_both, of_both)
    assert waiting.caps([shared, own]) == {}
    waiting.add([run("a", "rows"), run("b", "slow")])
    name, most = {"batches": ("rows", BATCHES_AHEAD * ROWS.size), "limits": ("slow", 2)}[kind]
    waiting.add([run(f"{number}", name) for number in range(most - 1)])
    assert waiting.caps([shared, own]) == {shared: 0}
    waiting.drain()
    assert waiting.caps([shared, own]) == {}
