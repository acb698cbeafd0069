"""The reader: what is new, what was lost on the way, what the dead left behind, what is due."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from bridge.streams import Keys
from workers.guard import Guard, Run, Settlement
from workers.outcomes import Outcome
from workers.reader import StreamReader

IM, CONTACT = "im.message.receive_v1", "contact.user.created_v3"

SOON = 0.05
"""Seconds; an event lease short enough to wait for."""


@pytest.fixture
def reader(redis: Redis, keys: Keys) -> StreamReader:
    return follower(redis, keys, "c1")


def follower(redis: Redis, keys: Keys, consumer: str, event_lease: float = 30.0) -> StreamReader:
    reader = StreamReader(redis, keys, "workers", consumer, event_lease)
    reader.follow([keys.stream(IM), keys.stream(CONTACT)])
    return reader


def ids(items) -> list[str]:
    return [item.entry.event_id for item in items]


def idle(redis: Redis, keys: Keys, entry_id: str) -> int:
    (found,) = redis.xpending_range(keys.stream(IM), "workers", entry_id, entry_id, 1)
    return found["time_since_delivered"]


def long_ago(redis: Redis, keys: Keys, consumer: str, entry_id: str) -> None:
    """Make it look as if this consumer had not renewed the entry for an hour."""
    redis.xclaim(keys.stream(IM), "workers", consumer, 0, [entry_id], idle=3_600_000, justid=True)


def test_events_published_before_the_first_worker_came_are_read(redis, keys, publish):
    publish("ev1", "ev2")
    assert ids(follower(redis, keys, "c1").read(10, 0.01)) == ["ev1", "ev2"]


def test_an_entry_goes_to_one_consumer_of_a_group(redis, keys, reader, publish):
    other = follower(redis, keys, "c2")
    publish("ev1")
    assert ids(reader.read(10, 0.01)) == ["ev1"]
    assert ids(other.read(10, 0.01)) == []


def test_no_more_is_read_than_there_is_room_for(reader, publish):
    publish(*(f"ev{number}" for number in range(10)))
    assert len(reader.read(4, 0.01)) <= 4


def test_a_quiet_stream_is_read_although_another_is_busy(reader, publish):
    publish(*(f"ev{number}" for number in range(100)))
    reader.read(2, 0.01)
    publish("quiet", event_type=CONTACT)
    found = [event_id for _ in range(8) for event_id in ids(reader.read(2, 0.01))]
    assert "quiet" in found
    assert len(found) > 8


def test_nothing_is_read_where_nothing_is_followed(redis, keys):
    reader = StreamReader(redis, keys, "workers", "c1", 30)
    assert reader.read(10, 0.01) == []


def test_a_read_whose_reply_was_lost_is_found_again(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(1200)))
    lost = follower(redis, keys, "c1").read(2000, 0.01)
    assert len(lost) == 1000  # for there are two streams
    assert ids(follower(redis, keys, "c1").own_pending()) == ids(lost)
    assert follower(redis, keys, "c2").own_pending() == []


def test_entries_are_taken_over_only_from_workers_that_renew_them_no_more(redis, keys, publish):
    dead = publish("dead")
    publish("alive")
    other = follower(redis, keys, "c2")
    other.read(10, 0.01)
    long_ago(redis, keys, "c2", dead)
    reader = follower(redis, keys, "c1")
    assert ids(reader.take_over(10)) == ["dead"]
    assert reader.take_over(10) == []
    assert ids(other.own_pending()) == ["alive"]


def test_no_more_is_taken_over_than_about_the_room(redis, keys, publish):
    for number in range(250):
        publish(f"ev{number}")
    other = follower(redis, keys, "c2", SOON)
    other.read(1000, 0.01)
    reader = follower(redis, keys, "c1", event_lease=0.001)
    taken = reader.take_over(150)
    assert 150 <= len(taken) < 250
    assert len(set(ids(taken))) == len(taken)


def test_renewing_keeps_an_entry_from_being_taken_over(redis, keys, reader, publish):
    entry_id = publish("ev1")
    items = reader.read(10, 0.01)
    long_ago(redis, keys, "c1", entry_id)
    reader.renew(items)
    assert idle(redis, keys, entry_id) < 1000
    assert follower(redis, keys, "c2").take_over(10) == []


def test_a_postponed_entry_is_taken_over_when_its_time_has_come(redis, keys, reader, publish):
    entry_id = publish("ev1")
    (item,) = reader.read(10, 0.01)
    reader.postpone(item, left=5.0)
    assert 25_000 <= idle(redis, keys, entry_id) < 26_000
    reader.postpone(item, left=0.0)
    assert ids(follower(redis, keys, "c2").take_over(10)) == ["ev1"]


def test_a_retry_is_fetched_once_when_it_is_due(redis, keys, reader, guard, publish):
    publish("ev1")
    (run,) = guard.claim(reader.read(10, 0.01))
    guard.settle([Settlement(run, Outcome(retry_after=60.0, error="no"))])
    assert reader.due(10) == []
    redis.zadd(keys.retries("workers"), {f"{run.pending.stream}|{run.pending.entry_id}": 0})
    other = follower(redis, keys, "c2")
    assert ids(other.due(10)) == ["ev1"]
    assert reader.due(10) == []


def test_a_due_retry_whose_taker_died_is_due_again_after_an_event_lease(redis, keys, publish):
    publish("ev1")
    reader = follower(redis, keys, "c1", SOON)
    guard = Guard(redis, keys, "workers", SOON, "w1")
    (run,) = guard.claim(reader.read(10, 0.01))
    assert isinstance(run, Run)
    guard.settle([Settlement(run, Outcome(retry_after=0.0, error="no"))])
    assert ids(reader.due(10)) == ["ev1"]
    deadline = time.monotonic() + 5
    while not (again := reader.due(10)):
        assert time.monotonic() < deadline
    assert ids(again) == ["ev1"]


def test_a_retry_of_a_stream_that_is_not_read_here_is_left_to_others(redis, keys, publish):
    publish("ev1")
    member = f"{keys.stream('approval.approval.updated_v4')}|1-1"
    redis.zadd(keys.retries("workers"), {member: 0})
    assert follower(redis, keys, "c1").due(10) == []
    assert redis.zscore(keys.retries("workers"), member) == 0


def test_a_retry_whose_entry_is_gone_is_forgotten(redis, keys, reader):
    redis.zadd(keys.retries("workers"), {f"{keys.stream(IM)}|1-1": 0})
    assert reader.due(10) == []
    assert redis.zcard(keys.retries("workers")) == 0


def test_acknowledged_entries_are_pending_no_more(redis, keys, reader, publish):
    publish("ev1", "ev2")
    reader.acknowledge(reader.read(10, 0.01))
    assert redis.xpending(keys.stream(IM), "workers")["pending"] == 0


def test_an_entry_that_nobody_can_read_becomes_a_dead_letter(redis, keys, reader, publish):
    redis.xadd(keys.stream(IM), {"hello": "world"})
    publish("ev1")
    assert ids(reader.read(10, 0.01)) == ["ev1"]
    ((_, letter),) = redis.xrange(keys.dead("workers"))
    assert letter[b"hello"] == b"world"
    assert letter[b"reason"] == b"decode"
    assert redis.xpending(keys.stream(IM), "workers")["pending"] == 1


def test_an_entry_deleted_before_its_time_is_dropped_and_told(redis, keys, reader, publish):
    publish("ev1")
    (item,) = reader.read(10, 0.01)
    redis.xdel(item.stream, item.entry_id)
    assert reader.own_pending() == []
    assert redis.xpending(keys.stream(IM), "workers")["pending"] == 0


def test_groups_lost_by_redis_are_made_anew(redis, keys, reader, publish):
    publish("ev1")
    redis.flushall()
    publish("ev2")
    reader.forget_groups()
    assert ids(reader.read(10, 0.01)) == ["ev2"]


def test_who_leaves_is_removed_and_what_it_held_is_for_others(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(250)))
    leaver, stayer = follower(redis, keys, "c1"), follower(redis, keys, "c2")
    held = leaver.read(1000, 0.01)
    long_ago(redis, keys, "c1", held[0].entry_id)
    leaver.leave()
    names = [each["name"] for each in redis.xinfo_consumers(keys.stream(IM), "workers")]
    assert b"c1" not in names
    assert redis.xpending(keys.stream(IM), "workers")["pending"] == 250
    assert ids(stayer.take_over(1000)) == [held[0].entry.event_id]


def test_who_leaves_and_holds_nothing_leaves_nothing_behind(redis, keys, reader):
    reader.read(10, 0.01)
    reader.leave()
    assert redis.xinfo_consumers(keys.stream(IM), "workers") == []


def test_leaving_a_group_that_is_gone_is_no_error(redis, keys, reader):
    redis.flushall()
    reader.leave()


def test_the_types_that_the_bridge_has_opened_are_known(reader, publish):
    publish("ev1", event_type=CONTACT)
    assert reader.known_types() == {CONTACT}
