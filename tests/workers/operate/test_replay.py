"""Replays: an event comes back once, as itself, and for those handlers only that had failed it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from flybridge.bridge.store.spoilt_keys import StreamSpoilt
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers import Registry
from flybridge.workers.claim.claims import Duplicate, Pending, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.reader import StreamReader
from flybridge.workers.operate import replay
from flybridge.workers.operate.letters import Letters, Selection
from flybridge.workers.operate.replay import (
    Answer,
    Pace,
    Replayer,
    Window,
    WindowEmpty,
    marks_kept,
    marks_since,
)

TYPE = "im.message.receive_v1"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DIED = Outcome(finished=("good",), failed=(Failure("bad", "attempts", "E: no"),))


@pytest.fixture
def letters(redis: Redis, keys: Keys) -> Letters:
    return Letters(redis, keys, "workers", "ada@sea")


@pytest.fixture
def replayer(redis: Redis, keys: Keys) -> Replayer:
    redis.sadd(keys.types, TYPE)
    return Replayer(redis, keys, "workers", "ada@sea")


@pytest.fixture
def deliver(redis: Redis, keys: Keys) -> Callable[..., Pending]:
    """Publish an event and have the group read it."""

    def deliver(event_id: str = "ev1", *, event_type: str = TYPE) -> Pending:
        event = Entry(
            event_id, event_type, "cli_test", "tk", "2.0", 1, 2, 3, TRACE, "v=1", b'{"a":1}'
        )
        stream, fields = keys.stream(event_type), event.fields()
        entry_id = redis.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))
        return read(redis, stream, entry_id)

    return deliver


def read(redis: Redis, stream: str, entry_id: bytes) -> Pending:
    if not redis.xinfo_groups(stream):
        redis.xgroup_create(stream, "workers", id="0")
    redis.xreadgroup("workers", "c", {stream: ">"})
    ((_, fields),) = redis.xrange(stream, entry_id, entry_id)
    return Pending(stream, entry_id.decode(), Entry.from_fields(fields))


def replayed(redis: Redis, keys: Keys) -> Pending:
    """The newest entry of the replay stream, as a worker reads it."""
    stream = keys.replay("workers", TYPE)
    return read(redis, stream, redis.xrevrange(stream, count=1)[0][0])


def attempt(guard: Guard, pending: Pending, outcome: Outcome) -> Run:
    (run,) = guard.claim([pending])
    assert isinstance(run, Run)
    assert guard.settle([Settlement(run, outcome)]) == [True]
    return run


def results(answers: list[Answer]) -> list[str]:
    return [answer.result for answer in answers]


def all_letters(replayer: Replayer, letters: Letters, registry: Registry | None = None) -> list:
    return list(replayer.replay(letters.oldest(Selection()), registry))


# Dead letters


def test_a_replayed_event_is_the_same_but_for_its_trace_and_time(
    redis, keys, guard, letters, replayer, deliver
):
    first = deliver()
    attempt(guard, first, DIED)
    assert results(all_letters(replayer, letters)) == ["moved"]
    again = replayed(redis, keys).entry
    assert (again.event_id, again.envelope, again.term) == ("ev1", b'{"a":1}', 3)
    assert again.replayed_at > 1_600_000_000_000
    assert (again.first_trace, again.traceparent, again.tracestate) == (TRACE, "", "")
    ((_, fields),) = redis.xrange(keys.replay("workers", TYPE))
    assert fields.keys() == {b"replayed_at", b"first_trace"} | {
        name.encode() for name in first.entry.fields()[::2]
    }
    assert redis.smembers(keys.replays("workers")) == {TYPE.encode()}


def test_only_the_handlers_that_had_not_succeeded_run_and_attempts_start_anew(
    redis, keys, guard, letters, replayer, deliver
):
    attempt(guard, deliver(), DIED)
    redis.delete(keys.state("workers", "ev1"))  # long expired
    all_letters(replayer, letters)
    assert redis.ttl(keys.state("workers", "ev1")) == -1
    (run,) = guard.claim([replayed(redis, keys)])
    assert (run.attempt, run.crashes, run.marks) == (1, 0, {"good": ""})
    assert redis.ttl(keys.state("workers", "ev1")) > 0


def test_nothing_else_of_the_first_way_is_left_in_the_state(
    redis, keys, guard, letters, replayer, deliver
):
    attempt(guard, deliver(), DIED)
    redis.hset(keys.state("workers", "ev1"), mapping={"crashes": 3, "alone": 4})
    all_letters(replayer, letters)
    assert redis.hgetall(keys.state("workers", "ev1")) == {
        b"state": b"retry", b"due": b"0", b"attempts": b"0", b"crashes": b"0", b"h:good": b""
    }  # fmt: skip


def test_a_letter_is_moved_and_the_move_is_in_the_audit(
    redis, keys, guard, letters, replayer, deliver
):
    attempt(guard, deliver(), DIED)
    (letter,) = letters.newest(Selection())
    all_letters(replayer, letters)
    assert letters.count() == 0
    ((_, audit),) = redis.xrange(keys.audit)
    assert int(audit.pop(b"at")) > 0
    assert audit == {
        b"who": b"ada@sea", b"action": b"replay", b"group": b"workers", b"event_id": b"ev1",
        b"event_type": TYPE.encode(), b"letter": letter.id.encode(), b"reason": b"attempts",
    }  # fmt: skip


def test_what_dies_again_is_a_new_letter_that_remembers_who_succeeded_and_the_first_trace(
    redis, keys, guard, letters, replayer, deliver
):
    attempt(guard, deliver(), DIED)
    all_letters(replayer, letters)
    attempt(guard, replayed(redis, keys), Outcome(failed=(Failure("bad", "attempts", "E: no"),)))
    (letter,) = letters.newest(Selection())
    assert letter.text("finished") == "good"
    assert letter.text("first_trace") == TRACE
    assert letter.number("attempts") == 1
    assert results(all_letters(replayer, letters)) == ["moved"]
    again = replayed(redis, keys).entry
    assert again.first_trace == TRACE
    fields = redis.xrevrange(keys.replay("workers", TYPE), count=1)[0][1]
    assert b"finished" not in fields


def test_a_replay_whose_reply_was_lost_is_one_replay(
    redis, keys, guard, letters, replayer, deliver, monkeypatch
):
    attempt(guard, deliver(), DIED)
    monkeypatch.setattr(replay, "answer_key", lambda keys: f"{keys.prefix}:answer:x")
    found = list(letters.oldest(Selection()))
    assert results(list(replayer.replay(found, None))) == ["moved"]
    attempt(guard, replayed(redis, keys), Outcome(finished=("bad",)))
    assert results(list(replayer.replay(found, None))) == ["moved"]
    assert redis.xlen(keys.replay("workers", TYPE)) == 1
    assert redis.xlen(keys.audit) == 1


@pytest.mark.parametrize("state", ["done", "running", "retry"])
def test_an_event_that_is_done_or_in_work_is_not_replayed_and_its_letter_stays(
    redis, keys, guard, letters, replayer, deliver, state
):
    attempt(guard, deliver(), DIED)
    redis.hset(keys.state("workers", "ev1"), "state", state)
    assert results(all_letters(replayer, letters)) == [state]
    assert letters.count() == 1
    assert not redis.exists(keys.replay("workers", TYPE))


def test_a_letter_that_went_or_holds_another_event_by_now_is_not_replayed(
    redis, keys, guard, letters, replayer, deliver
):
    attempt(guard, deliver("ev1"), DIED)
    attempt(guard, deliver("ev2"), DIED)
    one, two = letters.oldest(Selection())
    redis.xdel(keys.dead("workers"), one.id)
    redis.delete(keys.dead("workers"))
    redis.xadd(keys.dead("workers"), {"event_id": "other", "envelope": "{}"}, id=two.id)
    assert results(list(replayer.replay([one, two], None))) == ["gone", "changed"]
    assert letters.count() == 1


def test_a_dry_run_answers_as_if_and_changes_nothing(
    redis, keys, guard, letters, replayer, deliver
):
    attempt(guard, deliver("ev1"), DIED)
    attempt(guard, deliver("ev2"), DIED)
    redis.hset(keys.state("workers", "ev2"), "state", "done")
    before = {key: redis.dump(key) for key in redis.scan_iter()}
    trying = Replayer(redis, keys, "workers", "ada@sea", dry_run=True, pace=Pace(0.1))
    assert results(all_letters(trying, letters)) == ["moved", "done"]
    assert {key: redis.dump(key) for key in redis.scan_iter()} == before


def test_an_event_whose_handler_is_not_loaded_is_not_replayed_unless_nobody_asks(
    guard, letters, replayer, deliver
):
    attempt(guard, deliver(), DIED)
    registry = Registry()
    registry.register(lambda event, context: None, TYPE, name="another")
    (answer,) = all_letters(replayer, letters, registry)
    assert (answer.result, answer.detail) == ("handler", "bad")
    registry.register(lambda event, context: None, TYPE, name="bad")
    assert results(all_letters(replayer, letters, registry)) == ["moved"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("event_id", b""), ("term", b"soon"), ("replayed_at", b"1.5"), ("event_id", b"\xff")],
)
def test_a_letter_changed_by_hand_is_left_alone_and_its_neighbour_replayed(
    redis, keys, guard, letters, replayer, deliver, name, value
):
    attempt(guard, deliver("ev1"), DIED)
    attempt(guard, deliver("ev2"), DIED)
    ((_, fields), (_, sound)) = redis.xrange(keys.dead("workers"))
    redis.delete(keys.dead("workers"))
    redis.xadd(keys.dead("workers"), {**fields, name.encode(): value})
    redis.xadd(keys.dead("workers"), sound)
    assert results(all_letters(replayer, letters)) == ["unreadable", "moved"]
    assert letters.count() == 1


@pytest.mark.parametrize("spoilt", ["state", "replay", "replays", "audit"])
def test_a_key_of_a_wrong_type_stops_the_replay_before_anything_is_written(
    redis, keys, guard, letters, replayer, deliver, spoilt
):
    attempt(guard, deliver(), DIED)
    key = {
        "state": keys.state("workers", "ev1"),
        "replay": keys.replay("workers", TYPE),
        "replays": keys.replays("workers"),
        "audit": keys.audit,
    }[spoilt]
    redis.delete(key)
    redis.set(key, "spoilt")
    before = {each: redis.dump(each) for each in redis.scan_iter()}
    (answer,) = all_letters(replayer, letters)
    assert answer.result == "spoilt"
    assert "WRONGTYPE" in answer.detail
    assert {each: redis.dump(each) for each in redis.scan_iter()} == before


def test_letters_that_are_no_stream_are_an_error_with_a_sentence(redis, keys, letters, replayer):
    redis.set(keys.dead("workers"), "spoilt")
    with pytest.raises(StreamSpoilt, match="rename or delete"):
        all_letters(replayer, letters)


def test_a_full_redis_takes_no_replay_but_purges(redis, keys, guard, letters, replayer, deliver):
    attempt(guard, deliver(), DIED)
    found = list(letters.oldest(Selection()))
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(OutOfMemoryError):
            list(replayer.replay(found, None))
        assert letters.count() == 1
        assert letters.purge(found) == [True]
    finally:
        redis.config_set("maxmemory", "0")


def test_made_up_types_share_a_stream(redis, keys, guard, letters, replayer, deliver):
    attempt(guard, deliver(event_type="made.up_v1"), DIED)
    assert results(all_letters(replayer, letters)) == ["moved"]
    assert redis.smembers(keys.replays("workers")) == {b"other"}
    assert redis.xlen(keys.replay("workers", "other")) == 1


def test_another_group_is_not_disturbed(redis, keys, guard, letters, replayer, deliver):
    other = Guard(redis, keys, "audit", event_lease=30, boot="a1")
    first = deliver()
    redis.xgroup_create(first.stream, "audit", id="0")
    redis.xreadgroup("audit", "c", {first.stream: ">"})
    attempt(other, first, Outcome(finished=("audit",)))
    attempt(guard, first, DIED)
    all_letters(replayer, letters)
    assert other.claim([first]) == [Duplicate(first)]
    assert not redis.exists(keys.replays("audit"))


# Windows


@pytest.fixture
def window(redis: Redis, keys: Keys) -> Callable[..., Window]:
    def window(first: int = 0, last: int = 10**14, event_type: str = "", group: str = "workers"):
        return Window(redis, keys, group, first, last, event_type)

    return window


def refeed(replayer: Replayer, window: Window, *, since: int = 0, again: bool = False) -> Counter:
    return Counter(results(replayer.refeed(window.entries(), since, again=again)))


def test_a_window_leaves_out_what_the_group_knows_of(redis, keys, guard, replayer, deliver, window):
    attempt(guard, deliver("ev1"), Outcome(finished=("good",)))
    attempt(guard, deliver("ev2"), Outcome(retry_after=60.0))
    attempt(guard, deliver("ev3"), DIED)
    guard.claim([deliver("ev4")])
    deliver("ev5")
    assert refeed(replayer, window()) == {
        "done": 1, "retry": 1, "dead": 1, "running": 1, "moved": 1
    }  # fmt: skip
    assert replayed(redis, keys).entry.event_id == "ev5"
    assert refeed(replayer, window())["retry"] == 2
    ((_, audit),) = redis.xrange(keys.audit)
    assert audit[b"action"] == b"refeed"


def test_again_gives_done_events_to_all_handlers_but_touches_nothing_in_work_or_dead(
    redis, keys, guard, replayer, deliver, window
):
    attempt(guard, deliver("ev1"), Outcome(finished=("good",)))
    attempt(guard, deliver("ev2"), Outcome(retry_after=60.0))
    attempt(guard, deliver("ev3"), DIED)
    assert refeed(replayer, window(), again=True) == {"moved": 1, "retry": 1, "dead": 1}
    (run,) = guard.claim([replayed(redis, keys)])
    assert (run.pending.entry.event_id, run.attempt, run.marks) == ("ev1", 1, {})
    assert redis.xlen(keys.stream(TYPE)) == 3


def test_what_is_older_than_the_marks_is_unknown_and_left_out_unless_asked_for(
    replayer, deliver, window
):
    born = int(deliver().entry_id.partition("-")[0])
    assert refeed(replayer, window(), since=born + 1) == {"unknown": 1}
    assert refeed(replayer, window(), since=born + 1, again=True) == {"moved": 1}


HOUR, DAY = 3_600, 86_400


@pytest.mark.parametrize(
    ("kept", "known_for"),
    [
        ({}, 24 * HOUR),
        ({25 * HOUR: 0}, 25 * HOUR),
        ({7 * DAY: 0}, 7 * DAY),
        ({7 * DAY: 0, 25 * HOUR: 0}, 25 * HOUR),
        ({7 * DAY: 0, 25 * HOUR: 3 * DAY}, 3 * DAY),
        ({7 * DAY: 0, 25 * HOUR: 9 * DAY}, 7 * DAY),
        ({7 * DAY: 2 * HOUR, 25 * HOUR: 0}, 25 * HOUR),
    ],
)
def test_what_is_done_is_known_as_long_as_every_worker_has_kept_its_marks(kept, known_for):
    """The group's workers may have, or have had, different retentions; `kept`: seconds -> how
    long ago the last of them was there."""
    now = 10**12
    seen = {seconds: now - ago * 1000 for seconds, ago in kept.items()}
    assert marks_since(now, seen) == now - known_for * 1000


def test_workers_say_for_how_long_they_keep_marks(redis, keys):
    for name, retention in (("w1", 60.0), ("w2", 7.0 * DAY)):
        consumer = Consumer(redis, keys, "workers", name)
        StreamReader(consumer, 30.0, retention).subscribe(frozenset({"*"}))
    kept = marks_kept(redis, keys, "workers")
    assert kept.keys() == {DAY, 7 * DAY + HOUR}
    assert all(abs(seen - time.time() * 1000) < 5_000 for seen in kept.values())


def test_a_window_has_the_entries_of_its_time_and_type(redis, keys, window):
    for ms, event_type in ((1, TYPE), (2, TYPE), (3, "contact.user.created_v3"), (4, TYPE)):
        redis.xadd(keys.stream(event_type), {"event_id": f"ev{ms}", "event_type": event_type},
                   id=f"{ms}-5")  # fmt: skip
        redis.sadd(keys.types, event_type)
    assert [item.event_id for item in window(2, 4).entries()] == ["ev3", "ev2", "ev4"]
    assert [item.event_id for item in window(2, 4, "im.*").entries()] == ["ev2", "ev4"]


def test_an_event_published_twice_is_fed_once(replayer, deliver, window):
    deliver()
    deliver()
    assert refeed(replayer, window()) == {"moved": 1, "retry": 1}


def test_a_window_nobody_reads_or_writes_is_refused_with_what_there_is(
    redis, deliver, replayer, window
):
    deliver()
    window().check()
    with pytest.raises(WindowEmpty, match=r"group wrokers .*groups: workers"):
        window(group="wrokers").check()
    with pytest.raises(WindowEmpty, match=r"no event of type vc.* has ever come; types seen: im"):
        window(event_type="vc.*").check()


# Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_replays_keep_below_the_rate_and_what_is_left_out_costs_nothing():
    clock = Clock()
    pace = Pace(50, clock, clock.sleep)
    assert pace.batch == 10
    for _ in range(10):
        pace.spent(10)
    assert clock.now == pytest.approx(2.0)
    pace.spent(0)
    assert clock.now == pytest.approx(2.0)


def test_time_spent_elsewhere_is_no_credit_for_a_burst():
    clock = Clock()
    pace = Pace(10, clock, clock.sleep)
    clock.now = 100.0
    pace.spent(5)
    assert clock.now == pytest.approx(100.5)


@pytest.mark.parametrize(("rate", "batch"), [(0.1, 1), (5, 1), (100_000, replay.BATCH)])
def test_a_batch_is_never_empty_and_never_huge(rate, batch):
    assert Pace(rate).batch == batch
