"""Limits: a limited task starts what it may, and the rest waits in nobody's way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.limits import TokenBucket

from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.backlog.limits import MAX_PARKED, RECHECK_PERIOD, Bucket, Limits
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.claim.claims import Pending, Run
from tests.workers.tasks import tasks

FREE, NARROW, RATED = "free", "narrow", "rated"
KEYS = Keys("app")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Tokens:
    """A bucket without a clock."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def can_consume(self, tokens: int = 1) -> bool:
        self.tokens -= 1
        return self.tokens >= 0

    def expected_time(self, tokens: int = 1) -> float:
        return 0.25


def run(event_id: str, event_type: str) -> Run:
    entry = Entry(event_id, event_type, "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Run(Pending(KEYS.stream(event_type), f"{event_id}-0", entry), event_id, 1, {})


def runs(count: int, event_type: str) -> list[Run]:
    return [run(f"{event_type}{number}", event_type) for number in range(count)]


@pytest.fixture
def buckets() -> dict[str, Bucket]:
    return {RATED: Tokens(3)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(buckets: dict[str, Bucket], clock: Clock) -> Limits:
    return Limits(tasks({NARROW: 2}), tasks(buckets=buckets), clock)


def started(limits: Limits, task: str) -> list[str]:
    """What may start now, in order."""
    found = []
    while taken := limits.take(task):
        limits.began(task, taken.token)
        found.append(taken.token)
    return found


def test_only_events_of_limited_tasks_are_parked(limits: Limits) -> None:
    free = limits.park([run("a", FREE), run("b", NARROW), run("c", RATED), run("d", FREE)])
    assert [each.token for each in free] == ["a", "d"]
    assert limits.parked == 2
    assert limits.tasks() == [NARROW, RATED]


def test_no_more_start_than_may_run_at_once(limits: Limits) -> None:
    limits.park(runs(5, NARROW))
    assert started(limits, NARROW) == ["narrow0", "narrow1"]
    limits.ended(NARROW, "narrow0")
    limits.ended(NARROW, "narrow0")
    assert started(limits, NARROW) == ["narrow2"]
    assert limits.parked == 2


def test_no_more_start_than_there_are_tokens(limits: Limits) -> None:
    limits.park(runs(5, RATED))
    assert started(limits, RATED) == ["rated0", "rated1", "rated2"]
    assert limits.wait() == 0.25


def test_a_task_with_both_limits_takes_no_token_while_it_has_no_slot() -> None:
    bucket = Tokens(5)
    limits = Limits(tasks({"both": 1}), tasks(buckets={"both": bucket}))
    limits.park(runs(3, "both"))
    assert started(limits, "both") == ["both0"]
    assert bucket.tokens == 4
    assert limits.wait() is None
    limits.ended("both", "both0")
    assert limits.wait() == 0.25


def test_a_limit_that_an_operator_lifts_lets_everything_start(
    limits: Limits, buckets: dict[str, Bucket]
) -> None:
    limits.park(runs(5, RATED))
    buckets.clear()
    assert len(started(limits, RATED)) == 5
    assert not limits.limited(RATED)


def test_however_slow_a_rate_is_it_is_looked_at_again_soon(buckets: dict[str, Bucket]) -> None:
    buckets[RATED] = TokenBucket(1 / 3600)
    limits = Limits(tasks(), tasks(buckets=buckets))
    assert limits.wait() is None
    limits.park(runs(2, RATED))
    assert started(limits, RATED) == ["rated0"]
    assert limits.wait() == RECHECK_PERIOD


def test_the_streams_of_free_tasks_are_not_capped(limits: Limits) -> None:
    streams = [KEYS.stream(FREE), KEYS.replay("workers", NARROW), KEYS.stream(NARROW)]
    waiting = Waiting(tasks({NARROW: 2}), tasks())
    assert waiting.caps(streams) == {streams[1]: 3, streams[2]: 3}


def test_a_stream_is_left_alone_while_enough_of_it_is_parked(limits: Limits) -> None:
    limits.park(runs(3, NARROW))
    assert limits.room(NARROW) == 0
    started(limits, NARROW)
    assert limits.room(NARROW) == 0
    limits.ended(NARROW, "narrow0")
    assert limits.room(NARROW) == 1


def test_quick_handlers_of_a_limited_task_are_given_more_ahead(
    limits: Limits, clock: Clock
) -> None:
    for number in range(2000):
        clock.now += 0.002
        limits.park([run(str(number), NARROW)])
        assert limits.take(NARROW)
    assert 80 < (limits.room(NARROW) or 0) < 120


def test_what_is_parked_beyond_measure_is_taken_out_newest_first(limits: Limits) -> None:
    limits.park(runs(MAX_PARKED + 2, NARROW))
    assert [each.token for each in limits.excess()] == [
        f"narrow{MAX_PARKED + 1}",
        f"narrow{MAX_PARKED}",
    ]
    assert limits.excess() == []
    assert limits.parked == MAX_PARKED


def test_everything_can_be_taken_out(limits: Limits) -> None:
    limits.park([*runs(3, NARROW), *runs(2, RATED)])
    assert len(limits.drain()) == 5
    assert (limits.parked, limits.tasks()) == (0, [])


@given(st.lists(st.sampled_from(["park", "take", "end"]), max_size=60))
def test_whatever_happens_the_limit_holds_and_no_event_is_lost(steps: list[str]) -> None:
    limits = Limits(tasks({NARROW: 2}), tasks())
    running: list[str] = []
    parked = ended = 0
    acts: dict[str, Callable[[], object]] = {
        "park": lambda: limits.park([run(str(parked), NARROW)]),
        "take": lambda: running.extend(started(limits, NARROW)) if parked else None,
        "end": lambda: limits.ended(NARROW, running.pop()) if running else None,
    }
    for step in steps:
        before = len(running)
        acts[step]()
        parked += step == "park"
        ended += step == "end" and before > len(running)
        assert len(running) <= 2
        assert limits.parked + len(running) + ended == parked


def test_a_limit_that_comes_while_events_run_counts_those() -> None:
    narrow: dict[str, int] = {}
    limits = Limits(tasks(narrow), tasks())
    limits.began(NARROW, "a")
    limits.began(NARROW, "b")
    assert limits.park(runs(1, NARROW)) == runs(1, NARROW)

    narrow[NARROW] = 2
    assert limits.park(runs(1, NARROW)) == []
    assert limits.take(NARROW) is None
    limits.ended(NARROW, "a")
    assert limits.take(NARROW) is not None
