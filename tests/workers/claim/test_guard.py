"""The guard: one holder at a time, one recorded success, whatever is repeated, lost or late."""

from __future__ import annotations

import time

import pytest
import redis_lock
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import ConnectionError
from structlog.testing import capture_logs

from flybridge.bridge.store.lifetimes import mark_ttl
from flybridge.bridge.store.scripts import run_all
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.bridge.telemetry.redaction import Redactor
from flybridge.workers.claim.claims import Busy, Duplicate, Pending, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Failure, Later, Outcome
from flybridge.workers.locks import EventLock


def entry(event_id: str = "ev1") -> Entry:
    return Entry(event_id, "im.message.receive_v1", "cli_test", "tk", "2.0", 1, 2, 3, "", "", b"{}")


@pytest.fixture
def pending(redis: Redis, keys: Keys) -> Pending:
    return delivered(redis, keys, entry())


def delivered(redis: Redis, keys: Keys, event: Entry) -> Pending:
    stream = keys.stream(event.event_type)
    fields = event.fields()
    entry_id = redis.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))
    if not redis.exists(stream) or not redis.xinfo_groups(stream):
        redis.xgroup_create(stream, "workers", id="0")
    redis.xreadgroup("workers", "c", {stream: ">"})
    return Pending(stream, entry_id.decode(), event)


def claim(guard: Guard, item: Pending) -> Run:
    (answer,) = guard.claim([item])
    assert isinstance(answer, Run)
    return answer


def unacknowledged(redis: Redis, item: Pending) -> int:
    return redis.xpending(item.stream, "workers")["pending"]


def test_a_claimed_event_is_busy_for_everyone_else(guard, other_guard, pending):
    assert claim(guard, pending).attempt == 1
    (answer,) = other_guard.claim([pending])
    assert isinstance(answer, Busy)
    assert 29 < answer.left <= 30


def test_a_lock_without_an_end_is_not_asked_after_all_the_time(guard, redis, keys, pending):
    redis.set("lock:" + keys.lock_name("workers", "ev1"), "by hand")
    assert guard.claim([pending]) == [Busy(pending, 30.0)]


def test_an_event_that_is_done_is_a_duplicate_and_acknowledged(guard, other_guard, redis, pending):
    assert guard.settle([Settlement(claim(guard, pending), Outcome(finished=("H",)))]) == [True]
    assert unacknowledged(redis, pending) == 0
    assert other_guard.claim([pending]) == [Duplicate(pending)]


def test_many_claims_of_one_event_in_one_pipeline_give_one_run(guard, pending):
    answers = guard.claim([pending] * 200)
    assert sum(isinstance(answer, Run) for answer in answers) == 1


def test_a_claim_sent_twice_because_its_reply_was_lost_is_one_attempt(guard, redis, keys, pending):
    first = claim(guard, pending)
    guard._remember([pending], [first.token])  # the same call goes out again, token and all
    assert claim(guard, pending) == replace(first, fresh=False)
    assert redis.hget(keys.state("workers", "ev1"), "attempts") == b"1"


def test_a_claim_whose_answer_never_came_is_asked_for_again_by_its_own_token(
    guard, redis, keys, pending, monkeypatch
):
    def claimed_but_cut_off(redis, calls):
        run_all(redis, calls)
        raise ConnectionError("cut off")

    monkeypatch.setattr("flybridge.workers.claim.guard.run_all", claimed_but_cut_off)
    with pytest.raises(ConnectionError):
        guard.claim([pending])
    monkeypatch.undo()
    again = claim(guard, pending)
    assert (again.attempt, again.crashes) == (1, 0)
    assert isinstance(guard.claim([pending])[0], Busy)


def test_a_settlement_sent_twice_is_recorded_once(guard, redis, keys, pending):
    failed = Outcome(failed=(Failure("H", "rejected", "no"),))
    settlement = Settlement(claim(guard, pending), failed)
    assert guard.settle([settlement]) == [True]
    assert guard.settle([settlement]) == [True]
    assert redis.xlen(keys.dead("workers")) == 1


def test_a_retry_waits_until_it_is_due_and_counts_attempts(
    guard, other_guard, redis, keys, pending
):
    later = Outcome(finished=("A",), retry_after=60, error="boom")
    guard.settle([Settlement(claim(guard, pending), later)])
    (answer,) = other_guard.claim([pending])
    assert isinstance(answer, Busy)
    assert 59 < answer.left <= 60
    assert unacknowledged(redis, pending) == 1
    redis.hset(keys.state("workers", "ev1"), "due", 0)
    again = claim(other_guard, pending)
    assert again.attempt == 2
    assert again.marks == {"A": ""}


def test_handlers_given_up_stay_given_up(guard, redis, keys, pending):
    mixed = Outcome(failed=(Failure("B", "attempts", "E: x"),), retry_after=0)
    guard.settle([Settlement(claim(guard, pending), mixed)])
    assert claim(guard, pending).marks == {"B": "attempts\nE: x"}


def test_a_dead_letter_keeps_the_entry_untouched_and_says_why(guard, redis, keys, pending):
    guard.settle(
        [Settlement(claim(guard, pending), Outcome(failed=(Failure("H", "rejected", "E: no"),)))]
    )
    ((_, letter),) = redis.xrange(keys.dead("workers"))
    fields = entry().fields()
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        assert letter[str(name).encode()] == (
            value if isinstance(value, bytes) else str(value).encode()
        )
    assert letter[b"reason"] == b"rejected"
    assert letter[b"error"] == b"E: no"
    assert letter[b"handler"] == b"H"
    assert letter[b"attempts"] == b"1"
    assert letter[b"entry"].decode() == pending.entry_id
    assert unacknowledged(redis, pending) == 0


def test_an_entry_that_somebody_deleted_is_in_the_dead_letter_all_the_same(
    guard, redis, keys, pending
):
    run = claim(guard, pending)
    redis.delete(pending.stream)
    guard.settle([Settlement(run, Outcome(failed=(Failure("H", "rejected", "E: no"),)))])
    ((_, letter),) = redis.xrange(keys.dead("workers"))
    assert Entry.from_fields(letter) == pending.entry
    assert letter[b"reason"] == b"rejected"


def test_an_entry_crammed_by_hand_dies_like_any_other(guard, redis, keys):
    stream = keys.stream("im.message.receive_v1")
    fields = entry().fields()
    crammed = {f"f{number}": "x" for number in range(4_500)}
    entry_id = redis.xadd(stream, {**crammed, **dict(zip(fields[::2], fields[1::2], strict=True))})
    run = claim(guard, Pending(stream, entry_id.decode(), entry()))
    failed = Outcome(failed=(Failure("H", "rejected", "E: no"),))
    assert guard.settle([Settlement(run, failed)]) == [True]
    ((_, letter),) = redis.xrange(keys.dead("workers"))
    assert Entry.from_fields(letter) == entry()


def test_secrets_are_taken_out_of_every_error_that_is_kept(redis, keys, pending):
    hush = Guard(redis, keys, "workers", 30, "w1", redact=Redactor(["hush-hush"]).text)
    again = Outcome(
        failed=(Failure("A", "rejected", "E: hush-hush"),), retry_after=0, error="E: hush-hush"
    )
    hush.settle([Settlement(claim(hush, pending), again)])
    assert b"hush-hush" not in b"".join(redis.hvals(keys.state("workers", "ev1")))
    dead = Outcome(failed=(Failure("B", "attempts", "E: " + "\x00hush-hush" * 100),))
    hush.settle([Settlement(claim(hush, pending), dead)])
    ((_, letter),) = redis.xrange(keys.dead("workers"))
    assert letter[b"error"].startswith(b"E: \\x00[redacted]")
    assert len(letter[b"error"]) == 1024
    assert b"hush" not in b"".join(redis.hvals(keys.state("workers", "ev1")))


@pytest.mark.parametrize("outcome", [Outcome(), Outcome(failed=(Failure("H", "age", ""),))])
def test_the_mark_of_an_end_outlives_the_entry(redis, keys, pending, outcome):
    week = Guard(redis, keys, "workers", 30, "w1", retention=7 * 86_400)
    week.settle([Settlement(claim(week, pending), outcome)])
    ttl = redis.ttl(keys.state("workers", "ev1"))
    assert mark_ttl(7 * 86_400) - 5 <= ttl <= mark_ttl(7 * 86_400)


def test_an_event_given_back_has_not_been_attempted(guard, other_guard, pending):
    guard.settle([Settlement(claim(guard, pending), Outcome(retry_after=0, returned=True))])
    assert claim(other_guard, pending).attempt == 1


def test_a_claim_that_expired_and_was_taken_over_can_neither_settle_nor_renew(
    guard, other_guard, redis, keys, pending
):
    late = claim(guard, pending)
    redis.delete("lock:" + keys.lock_name("workers", "ev1"))  # its lease ran out
    taken = claim(other_guard, pending)
    assert taken.attempt == 2
    assert guard.renew([late]) == [False]
    assert guard.settle([Settlement(late, Outcome(finished=("H",)))]) == [False]
    assert unacknowledged(redis, pending) == 1
    assert other_guard.settle([Settlement(taken, Outcome(finished=("H",)))]) == [True]


def test_a_claim_that_expired_unnoticed_by_anyone_is_renewed(
    guard, other_guard, redis, keys, pending
):
    run = claim(guard, pending)
    redis.delete("lock:" + keys.lock_name("workers", "ev1"))
    assert guard.renew([run]) == [True]
    assert isinstance(other_guard.claim([pending])[0], Busy)


def test_a_renewed_claim_keeps_its_state_however_long_it_runs(guard, redis, keys, pending):
    run = claim(guard, pending)
    state = keys.state("workers", "ev1")
    redis.expire(state, 60)  # a day has gone
    assert guard.renew([run]) == [True]
    assert redis.ttl(state) > 3600
    redis.expire(state, 30 * 86_400)  # a retry far away
    guard.renew([run])
    assert redis.ttl(state) > 29 * 86_400


def test_scripts_lost_by_redis_are_loaded_again(guard, redis, pending):
    redis.script_flush()
    assert claim(guard, pending).attempt == 1


def test_a_spoilt_key_stops_one_event_and_not_its_neighbours(guard, redis, keys, pending):
    good = delivered(redis, keys, entry("ev2"))
    redis.set(keys.state("workers", "ev1"), "not a hash")
    spoilt, fine = guard.claim([pending, good])
    assert isinstance(spoilt, Busy)
    assert isinstance(fine, Run)


@pytest.mark.parametrize("number", ["", "x", "-1", "inf", "nan", "1e400", "9" * 40, None])
def test_a_state_edited_by_hand_counts_as_far_as_it_can_be_read(
    guard, redis, keys, pending, number
):
    """`HSET ... state retry` is how an operator may ask for another attempt."""
    odd = dict.fromkeys(("attempts", "crashes", "due", "alone"), number) if number else {}
    redis.hset(keys.state("workers", "ev1"), mapping={"state": "retry", **odd, b"h:\xff": b"\xff"})
    run = claim(guard, pending)
    assert (run.attempt, run.crashes) == (1, 0)
    assert guard.settle(
        [Settlement(run, Outcome(failed=(Failure("H", "attempts", "E: no"),)))]
    ) == [True]
    assert redis.hget(keys.state("workers", "ev1"), "state") == b"dead"


def test_claims_are_locks_that_python_redis_lock_sees_extends_and_waits_for(
    guard, redis, keys, pending
):
    name = keys.lock_name("workers", "ev1")
    run = claim(guard, pending)
    stranger = redis_lock.Lock(redis, name, expire=5)
    assert stranger.acquire(blocking=False) is False
    holder = EventLock(redis, keys, "workers", "ev1", run.token, event_lease=90)
    holder.extend()
    assert 30 < redis.ttl("lock:" + name) <= 90
    guard.settle([Settlement(run, Outcome(finished=("H",)))])
    assert stranger.acquire(blocking=True, timeout=2)
    stranger.release()


def test_a_lock_held_by_a_stranger_keeps_the_event_from_running(guard, redis, keys, pending):
    stranger = redis_lock.Lock(redis, keys.lock_name("workers", "ev1"), expire=5)
    assert stranger.acquire(blocking=False)
    assert isinstance(guard.claim([pending])[0], Busy)
    stranger.release()
    assert claim(guard, pending).attempt == 1


def test_events_of_one_app_share_a_cluster_slot(keys):
    names = [keys.state("g", "e"), keys.lock_name("g", "e"), keys.stream("a.b"), keys.retries("g")]
    assert all("{cli_test}" in name for name in names)


def test_dead_letters_of_a_type_without_a_handler_are_bounded_and_the_oldest_goes(redis, keys):
    guard = Guard(redis, keys, "workers", event_lease=30, boot="w1", unhandled_limit=2)
    failure = Failure("", "unhandled", "no worker of group workers has a handler for this type")
    nobodys = Outcome(failed=(failure,))
    rejected = Outcome(failed=(Failure("H", "rejected", "E"),))

    for event_id, outcome in [("a", nobodys), ("b", rejected), ("c", nobodys), ("d", nobodys)]:
        run = claim(guard, delivered(redis, keys, entry(event_id)))
        assert guard.settle([Settlement(run, outcome)]) == [True]
    other = delivered(redis, keys, replace(entry("e"), event_type="contact.user.created_v3"))
    assert guard.settle([Settlement(claim(guard, other), nobodys)]) == [True]

    letters = [letter[b"event_id"] for _, letter in redis.xrange(keys.dead("workers"))]
    assert letters == [b"b", b"c", b"d", b"e"]
    assert guard.displaced == 1


def test_a_letter_that_was_replayed_meanwhile_makes_room_for_nobody(redis, keys):
    guard = Guard(redis, keys, "workers", event_lease=30, boot="w1", unhandled_limit=1)
    outcome = Outcome(failed=(Failure("", "unhandled", "E"),))
    for event_id in ("a", "b"):
        run = claim(guard, delivered(redis, keys, entry(event_id)))
        guard.settle([Settlement(run, outcome)])
        redis.xtrim(keys.dead("workers"), maxlen=0)
    assert guard.displaced == 0


@pytest.mark.parametrize("spoilt", ["dead", "unhandled"])
def test_an_unhandled_event_whose_letter_cannot_be_kept_is_given_up_anew_later(
    guard, redis, keys, pending, spoilt
):
    key = {
        "dead": keys.dead("workers"),
        "unhandled": keys.unhandled("workers", pending.entry.event_type),
    }[spoilt]
    nobodys = Outcome(failed=(Failure("", "unhandled", "E"),))
    for _ in range(2):
        redis.set(key, "by hand")
        with capture_logs() as lines:
            assert guard.settle([Settlement(claim(guard, pending), nobodys)]) == [None]
        assert [line["key"] for line in lines] == [key]
        redis.delete(key)
        assert isinstance(guard.claim([pending])[0], Busy)
        redis.hset(keys.state("workers", "ev1"), "due", 0)
        assert guard.settle([Settlement(claim(guard, pending), nobodys)]) == [True]
        redis.delete(keys.state("workers", "ev1"))


def later(*handlers: Later) -> Outcome:
    return Outcome(retry_after=0.0, error="E", later=handlers)


def test_each_handler_keeps_its_own_retry_and_attempts(guard, other_guard, pending):
    first = later(Later("A", 1, 600), Later("B", 1, 0))
    assert guard.settle([Settlement(claim(guard, pending), first)]) == [True]
    here = time.monotonic()
    second = claim(other_guard, pending)
    assert {name: each.made for name, each in second.tries.items()} == {"A": 1, "B": 1}
    assert second.tries["A"].due - here == pytest.approx(600, abs=5)
    assert second.tries["B"].due - here == pytest.approx(0, abs=1)
    assert second.attempt == 2

    for number in range(2, 5):
        other_guard.settle([Settlement(second, later(Later("B", number, 0)))])
        second = claim(other_guard, pending)
    # The fifth claim of the event; A has used up none of its attempts.
    assert (second.tries["A"].made, second.tries["B"].made, second.attempt) == (1, 4, 5)

    ended = Outcome(finished=("B",), retry_after=0.0)
    other_guard.settle([Settlement(second, ended)])
    third = claim(guard, pending)
    assert (dict(third.marks), set(third.tries)) == ({"B": ""}, {"A"})
    assert guard.settle([Settlement(third, Outcome(finished=("A",)))]) == [True]
    assert other_guard.claim([pending]) == [Duplicate(pending)]


def test_a_crash_counts_for_each_handler_that_had_not_ended(guard, redis, keys, pending):
    guard.settle([Settlement(claim(guard, pending), later(Later("A", 2, 0)))])
    crash = Outcome(retry_after=0.0, crashed=True)
    guard.settle([Settlement(claim(guard, pending), crash)])
    run = claim(guard, pending)
    assert (run.tries["A"].made, run.attempt, run.crashes) == (3, 4, 1)
    # What was said when the process died has been counted.
    crash = Outcome(retry_after=0.0, crashed=True, later=(Later("A", 4, 0),))
    guard.settle([Settlement(run, crash)])
    run = claim(guard, pending)
    assert (run.tries["A"].made, run.crashes) == (4, 2)


def test_what_was_given_back_counts_for_no_handler(guard, pending):
    guard.settle([Settlement(claim(guard, pending), later(Later("A", 1, 0)))])
    for _ in range(3):
        run = claim(guard, pending)
        guard.settle([Settlement(run, Outcome(retry_after=0.0, returned=True))])
    assert (run.tries["A"].made, run.attempt) == (1, 2)


def test_a_retry_noted_while_the_clock_was_ahead_comes_no_later_than_it_may(
    guard, redis, keys, pending
):
    guard.settle([Settlement(claim(guard, pending), later(Later("A", 1, 60)))])
    ahead = f"1:{int(time.time() * 1000) + 7_200_000}:60000:0"
    redis.hset(keys.state("workers", "ev1"), mapping={"t:A": ahead, "t:B": "by hand"})
    run = claim(guard, pending)
    assert set(run.tries) == {"A"}
    assert run.tries["A"].due - time.monotonic() == pytest.approx(60, abs=5)
