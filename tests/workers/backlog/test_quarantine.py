"""Poison: who runs alone, who is given up, and that nobody waits for ever."""

from __future__ import annotations

import pytest
from redis import Redis

from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.backlog.quarantine import SLOW_TURN, is_suspect, isolate, patience, verdict
from flybridge.workers.backlog.suspects import LONGEST_TURN
from flybridge.workers.claim.claims import Pending, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Outcome


def run(event_id: str = "ev", attempt: int = 1, crashes: int = 0) -> Run:
    entry = Entry(event_id, "im", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Run(Pending("s", "1-1", entry), event_id, attempt, {}, crashes)


@pytest.mark.parametrize(
    ("crashes", "max_attempts", "suspect"),
    [(0, 5, False), (1, 5, False), (2, 5, True), (1, 3, False), (2, 3, True), (1, 2, True)],
)
def test_in_a_shared_process_an_event_is_suspect_while_it_has_an_attempt_left(
    crashes: int, max_attempts: int, suspect: bool
) -> None:
    held = run(attempt=crashes + 1, crashes=crashes)
    assert is_suspect(held, max_attempts, shares_process=True) is suspect
    assert not is_suspect(held, max_attempts, shares_process=False)


@pytest.mark.parametrize("shares_process", [True, False])
def test_an_event_whose_last_attempt_was_lost_is_suspect_in_every_pool(
    shares_process: bool,
) -> None:
    assert is_suspect(run(attempt=6, crashes=1), 5, shares_process=shares_process)
    assert not is_suspect(run(attempt=5, crashes=1), 5, shares_process=shares_process)


def test_only_what_died_alone_in_its_last_attempt_is_given_up() -> None:
    outcome = verdict(run(attempt=6, crashes=5), 5, before=5)
    assert outcome is not None
    ((failure),) = outcome.failed
    assert (failure.handler, failure.reason) == ("", "crash_loop")
    assert failure.error == "its process died in 5 of 5 attempts, in the last one alone"
    assert verdict(run(attempt=6, crashes=5), 5, before=0) is None
    assert verdict(run(attempt=6, crashes=3), 5, before=3) is None
    assert verdict(run(attempt=5, crashes=4), 5, before=4) is None


def test_a_suspect_that_another_worker_has_is_left_to_it() -> None:
    outcome = verdict(run(attempt=3, crashes=2), 5, before=-1)
    assert outcome is not None
    assert outcome.verdict == "retry"


def test_a_note_is_kept_with_the_state_for_the_next_worker(
    redis: Redis, keys: Keys, guard: Guard, other_guard: Guard
) -> None:
    pending = run().pending
    (first,) = guard.claim([pending])
    assert isinstance(first, Run)
    assert isolate(redis, keys, "workers", first) == 0
    redis.delete("lock:" + keys.lock_name("workers", "ev"))  # as if its worker had died
    (second,) = other_guard.claim([pending])
    assert isinstance(second, Run)
    assert isolate(redis, keys, "workers", first) == -1
    assert isolate(redis, keys, "workers", second) == 1
    assert isolate(redis, keys, "workers", second) == 1, "its reply was lost, and it is asked again"
    other_guard.settle([Settlement(second, Outcome(retry_after=0.0))])
    (third,) = guard.claim([pending])
    assert isinstance(third, Run)
    assert isolate(redis, keys, "workers", third) == 2


def test_a_note_of_an_attempt_that_never_began_is_taken_back(
    redis: Redis, keys: Keys, guard: Guard, other_guard: Guard
) -> None:
    pending = run().pending
    (first,) = guard.claim([pending])
    assert isinstance(first, Run)
    isolate(redis, keys, "workers", first)
    guard.settle([Settlement(first, Outcome(retry_after=0.0, returned=True))])
    other_guard.claim([pending])
    redis.delete("lock:" + keys.lock_name("workers", "ev"))  # as if its worker had died
    (third,) = guard.claim([pending])
    assert isinstance(third, Run)
    assert third.attempt == 2
    assert isolate(redis, keys, "workers", third) == 0
    guard.settle([Settlement(third, Outcome(retry_after=0.0, returned=True))])
    assert redis.hget(keys.state("workers", "ev"), "alone") is None


@pytest.mark.parametrize("noted_again", [False, True])
def test_a_note_of_an_earlier_attempt_outlives_one_that_never_began(
    redis: Redis, keys: Keys, guard: Guard, noted_again: bool
) -> None:
    pending = run().pending
    (first,) = guard.claim([pending])
    assert isinstance(first, Run)
    isolate(redis, keys, "workers", first)
    redis.delete("lock:" + keys.lock_name("workers", "ev"))
    (second,) = guard.claim([pending])
    assert isinstance(second, Run)
    if noted_again:
        isolate(redis, keys, "workers", second)
    guard.settle([Settlement(second, Outcome(retry_after=0.0, returned=True))])
    (third,) = guard.claim([pending])
    assert isinstance(third, Run)
    assert isolate(redis, keys, "workers", third) == 1


def test_a_state_that_was_spoilt_meanwhile_stops_no_other_suspect(
    redis: Redis, keys: Keys, guard: Guard
) -> None:
    (claimed,) = guard.claim([run().pending])
    assert isinstance(claimed, Run)
    redis.set(keys.state("workers", "ev"), "by hand")
    assert isolate(redis, keys, "workers", claimed) == -1
    assert guard.settle([Settlement(claimed, Outcome(retry_after=0.0))]) == [None]


def test_a_note_makes_no_state_where_there_is_none(redis: Redis, keys: Keys) -> None:
    assert isolate(redis, keys, "workers", run()) == -1
    assert not redis.exists(keys.state("workers", "ev"))


def test_others_join_a_slow_suspect_unless_its_end_may_give_it_up() -> None:
    assert patience(run(attempt=3, crashes=2), 5) == SLOW_TURN
    assert patience(run(attempt=5, crashes=2), 5) == LONGEST_TURN
    assert patience(run(attempt=6, crashes=2), 5) == LONGEST_TURN
