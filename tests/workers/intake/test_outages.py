"""Riding out failures: the caller goes on, and the log tells an outage and its end once."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from flybridge.workers.intake.outages import FAILURE_COUNTS_FOR, Health, Outages

Lines = list[MutableMapping[str, Any]]

NOREPLICAS = ResponseError("NOREPLICAS Not enough good replicas to write.")


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("flybridge.workers.intake.outages.time", clock)
    return clock


@pytest.fixture
def outages(clock: Clock) -> Outages:
    no_pauses = threading.Event()
    no_pauses.set()
    return Outages(None, lambda: None, no_pauses)  # type: ignore[arg-type]


class Reader:
    """Its groups cannot be made: a key that they need is of another type, and stays so."""

    def __init__(self) -> None:
        self.asked = 0

    def make_groups_again(self) -> None:
        self.asked += 1
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


def ask(outages: Outages, doing: str, error: Exception | None = None) -> None:
    with outages.ride_out(doing):
        if error:
            raise error


def told(lines: Lines) -> list[str]:
    return [line["event"] for line in lines]


def test_who_succeeds_between_the_failures_of_others_does_not_end_the_outage(outages, clock):
    with structlog.testing.capture_logs() as lines:
        for now in (0.0, 0.3, 0.6):
            clock.now = now
            for doing in ("keep", "settle"):
                ask(outages, doing, NOREPLICAS)
                ask(outages, doing)
        clock.now = 5.0
        ask(outages, "keep")
    assert told(lines) == ["redis.refused", "redis.recovered"]


@pytest.mark.parametrize("code", ["NOGROUP", "UNBLOCKED", "WRONGTYPE"])
def test_groups_that_cannot_be_made_are_tried_once_for_each_failure(clock, code):
    no_pauses = threading.Event()
    no_pauses.set()
    reader = Reader()
    outages = Outages(reader, lambda: None, no_pauses)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as lines:
        for number in (1, 2):
            ask(outages, "read", ResponseError(f"{code} and so on"))
            assert reader.asked == number
    assert told(lines) == ["redis.refused"]


CALM = 1.0


@pytest.fixture
def health() -> Health:
    return Health(CALM)


def test_who_never_failed_ends_nothing(health):
    assert not health.succeeded("read", 5.0)


def test_the_first_failure_begins_an_outage_and_others_are_part_of_it(health):
    assert health.failed("read", 0.0, 0.1)
    assert not health.failed("keep", 0.0, 0.1)
    assert not health.failed("read", 0.3, 0.4)


def test_one_thread_s_success_between_the_failures_of_others_does_not_end_it(health):
    assert health.failed("keep", 0.0, 0.1)
    assert not health.succeeded("keep", 0.2)
    assert not health.failed("settle", 0.0, 0.3)
    assert not health.succeeded("settle", 1.0)
    assert health.succeeded("settle", 1.3)


def test_it_goes_on_while_anyone_who_failed_has_not_succeeded_since(health):
    health.failed("read", 0.0, 0.1)
    health.failed("keep", 0.0, 0.1)
    assert not health.succeeded("keep", 6.0)
    assert not health.failed("read", 0.3, 7.0)
    assert not health.succeeded("read", 7.5)
    assert health.succeeded("keep", 8.0)


def test_a_server_that_fails_now_and_then_is_in_one_outage(health):
    told = []
    for at in (0.0, 1.5, 3.0):
        told += [health.failed("read", at, at), health.succeeded("read", at + 0.75)]
    assert told == [True, False, False, False, False, False]
    assert health.succeeded("read", 4.0)


def test_what_was_asked_before_the_end_and_fails_after_it_is_part_of_it(health):
    health.failed("keep", 0.0, 5.0)
    assert health.succeeded("keep", 6.0)
    assert not health.failed("read", 4.0, 11.0)
    assert not health.succeeded("read", 20.0)


def test_what_is_asked_after_the_end_and_fails_is_another_outage(health):
    health.failed("keep", 0.0, 5.0)
    health.succeeded("keep", 6.0)
    assert health.failed("keep", 6.0, 6.1)
    assert health.succeeded("keep", 8.0)


def test_who_failed_and_asks_nothing_more_does_not_keep_it_up_for_ever(health):
    health.failed("line", 0.0, 0.0)
    assert not health.succeeded("keep", FAILURE_COUNTS_FOR - 1)
    assert health.succeeded("keep", FAILURE_COUNTS_FOR)


class Moment(float):
    """A time; whoever compares it gives way to another thread first."""

    def __new__(cls, other: threading.Thread) -> Moment:
        made = super().__new__(cls, 0.0)
        made.other = other
        return made

    other: threading.Thread

    def __lt__(self, value: float) -> bool:
        self.other.start()
        # In vain where the other waits for us, as it should.
        self.other.join(0.2)
        return float(self) < value


def test_of_two_threads_that_fail_at_once_one_tells(health):
    told = []
    other = threading.Thread(target=lambda: told.append(health.failed("keep", 0.0, 0.0)))
    told.append(health.failed("read", Moment(other), 0.0))
    other.join()
    assert sorted(told) == [False, True]


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 8)),
        max_size=60,
    )
)
def test_beginnings_and_ends_alternate_and_all_ends_well(
    calls: list[tuple[bool, str, int, int]],
) -> None:
    health, now, told = Health(CALM), 0, []
    for fails, who, later, took in calls:
        now += later
        if fails and health.failed(who, now - took, now):
            told.append("lost")
        elif not fails and health.succeeded(who, now):
            told.append("recovered")
    told += ["recovered" for who in "abc" if health.succeeded(who, now + CALM)]
    assert told == ["lost", "recovered"] * (len(told) // 2)
