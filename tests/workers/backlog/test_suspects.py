"""Suspects: who has the pool when, so that nobody waits for long."""

from __future__ import annotations

import pytest
import structlog

from flybridge.bridge.store.streams import Entry
from flybridge.workers.backlog.suspects import (
    DRAIN,
    LONGEST_TURN,
    MAX_SUSPECTS,
    OTHERS_TURN,
    Suspects,
)
from flybridge.workers.claim.claims import Pending, Run


def run(event_id: str) -> Run:
    entry = Entry(event_id, "im", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Run(Pending("s", "1-1", entry), event_id, 3, {}, 2)


A, B, C = map(run, "abc")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def suspects(clock: Clock) -> Suspects:
    return Suspects(lambda _: 10.0, clock)


def test_they_run_one_by_one_with_nothing_beside_them(suspects: Suspects) -> None:
    assert not suspects.reserved
    suspects.add(A)
    suspects.add(B)
    assert suspects.take(3, others=False) is None
    assert suspects.reserved, "nothing else starts"
    assert suspects.take(0, others=False) == A
    assert suspects.take(1, others=False) is None
    assert suspects.reserved
    assert suspects.take(0, others=False) == B
    assert suspects.take(0, others=False) is None
    assert not suspects.reserved


def test_between_two_of_them_others_have_as_long_as_they_were_kept_out(
    suspects: Suspects, clock: Clock
) -> None:
    suspects.add(A)
    suspects.add(B)
    assert suspects.take(1, others=True) is None
    clock.now += 1
    assert suspects.take(0, others=True) == A
    clock.now += 2
    assert suspects.take(0, others=True) is None
    assert not suspects.reserved
    assert suspects.wait() == pytest.approx(3)
    clock.now += 2.9
    assert suspects.take(2, others=True) is None
    assert not suspects.reserved
    clock.now += 0.2
    assert suspects.take(2, others=True) is None
    assert suspects.reserved
    assert suspects.take(0, others=True) == B


def test_quick_ones_leave_others_a_turn_too(suspects: Suspects, clock: Clock) -> None:
    suspects.add(A)
    suspects.add(B)
    assert suspects.take(0, others=True) == A
    assert suspects.take(0, others=True) is None
    assert suspects.wait() == pytest.approx(OTHERS_TURN)


def test_nobody_waits_for_others_that_are_not_there(suspects: Suspects) -> None:
    suspects.add(A)
    suspects.add(B)
    assert suspects.take(0, others=True) == A
    assert suspects.take(0, others=False) == B


def test_others_join_one_that_takes_too_long(suspects: Suspects, clock: Clock) -> None:
    suspects.add(A)
    suspects.add(B)
    assert suspects.take(0, others=True) == A
    clock.now += 9.9
    assert suspects.take(1, others=True) is None
    assert suspects.reserved
    clock.now += 0.2
    assert suspects.take(1, others=True) is None
    assert not suspects.reserved
    clock.now += 10.2
    assert suspects.take(1, others=True) is None
    assert suspects.reserved, "the next one waits for an empty pool"


def test_a_pool_that_does_not_become_empty_stands_still_for_moments_only(
    suspects: Suspects, clock: Clock
) -> None:
    suspects.add(A)
    still, total, longest = 0.0, 0.0, 0.0
    with structlog.testing.capture_logs() as lines:
        while (taken := suspects.take(1, others=True)) is None:
            step = max(0.01, suspects.wait() or 0.0)
            if suspects.reserved:
                still, longest = still + step, max(longest, step)
            clock.now += step
            total += step
            if total < DRAIN * 4:
                assert longest <= DRAIN * 2
    assert taken == A
    assert [line["event"] for line in lines] == ["suspect.not_alone"]
    assert longest == pytest.approx(LONGEST_TURN)
    assert still < total * 0.7
    assert not suspects.reserved, "others go on beside both"


def test_one_that_cannot_start_yet_keeps_the_pool_empty(suspects: Suspects, clock: Clock) -> None:
    suspects.add(A)
    assert suspects.take(0, others=True) == A
    suspects.put_back(A)
    clock.now += LONGEST_TURN
    assert suspects.reserved
    assert suspects.take(0, others=True) == A


def test_what_is_beyond_measure_is_taken_out_the_last_first(suspects: Suspects) -> None:
    for number in range(MAX_SUSPECTS + 2):
        suspects.add(run(f"ev{number}"))
    assert [each.token for each in suspects.excess()] == [
        f"ev{MAX_SUSPECTS + 1}",
        f"ev{MAX_SUSPECTS}",
    ]
    assert suspects.excess() == []
