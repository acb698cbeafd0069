"""The pending list: what was lost on the way, what the dead left behind, what is due."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Keys
from flybridge.workers.claim.claims import Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Outcome
from tests.workers.follower import CONTACT, IM, SOON, follower, ids, long_ago, missing


@pytest.fixture
def server(either_server: EmbeddedRedis) -> EmbeddedRedis:
    return either_server


def idle(redis: Redis, keys: Keys, entry_id: str) -> int:
    (found,) = redis.xpending_range(keys.stream(IM), "workers", entry_id, entry_id, 1)
    return found["time_since_delivered"]


def retries(keys: Keys) -> str:
    return keys.retries_of("workers", keys.stream(IM))


def far_retries(redis: Redis, keys: Keys, items: list[Any]) -> None:
    """Have these entries wait for a retry in an hour."""
    due = (time.time() + 3600) * 1000
    for item in items:
        redis.zadd(keys.retries_of("workers", item.stream), {item.entry_id: due})


def test_a_read_whose_reply_was_lost_is_found_again(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(1200)))
    lost = follower(redis, keys, "c1").read_all()
    assert ids(follower(redis, keys, "c1").own()) == ids(lost)
    assert follower(redis, keys, "c2").own() == []


def test_entries_are_taken_over_only_from_workers_that_renew_them_no_more(redis, keys, publish):
    dead = publish("dead")
    publish("alive")
    other = follower(redis, keys, "c2")
    other.read(10)
    long_ago(redis, keys, "c2", dead)
    worker = follower(redis, keys, "c1")
    assert ids(worker.pending.take_over(10)) == ["dead"]
    assert worker.pending.take_over(10) == []
    assert ids(other.own()) == ["alive"]


def test_no_more_is_taken_over_than_about_the_room(redis, keys, publish):
    for number in range(250):
        publish(f"ev{number}")
    other = follower(redis, keys, "c2", SOON)
    other.read_all()
    worker = follower(redis, keys, "c1", event_lease=0.001)
    taken = worker.pending.take_over(150)
    assert len(taken) == 150
    assert len(set(ids(taken))) == 150


def test_what_there_was_no_room_for_can_be_taken_over_at_once(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(10)))
    dead = follower(redis, keys, "dead")
    for held in dead.read(20):
        long_ago(redis, keys, "dead", held.entry_id)
    taker, other = follower(redis, keys, "c1"), follower(redis, keys, "c2")
    taken = [
        *taker.pending.take_over(3),
        *taker.pending.take_over(3),
        *other.pending.take_over(3),
        *taker.pending.take_over(3),
    ]
    assert sorted(ids(taken)) == [f"ev{number}" for number in range(10)]
    assert taker.pending.take_over(3) == []


def test_what_a_dead_worker_left_is_taken_over_within_the_cap(redis, keys, worker, publish):
    publish(*(f"ev{number}" for number in range(5)))
    for item in follower(redis, keys, "dead").read(100):
        long_ago(redis, keys, "dead", item.entry_id)
    assert worker.pending.take_over(100, {keys.stream(IM): 0}) == []
    assert len(worker.pending.take_over(100, {keys.stream(IM): 2})) == 2


def test_renewing_keeps_an_entry_from_being_taken_over(redis, keys, worker, publish):
    entry_id = publish("ev1")
    items = worker.read(10)
    long_ago(redis, keys, "c1", entry_id)
    worker.pending.renew(items)
    assert idle(redis, keys, entry_id) < 1000
    assert follower(redis, keys, "c2").pending.take_over(10) == []


def test_a_postponed_entry_is_taken_over_when_its_time_has_come(redis, keys, worker, publish):
    entry_id = publish("ev1")
    (item,) = worker.read(10)
    worker.pending.postpone(item, left=5.0)
    assert 25_000 <= idle(redis, keys, entry_id) < 26_000
    worker.pending.postpone(item, left=0.0)
    assert ids(follower(redis, keys, "c2").pending.take_over(10)) == ["ev1"]


def test_a_retry_is_fetched_once_when_it_is_due(redis, keys, worker, guard, publish):
    publish("ev1")
    (run,) = guard.claim(worker.read(10))
    guard.settle([Settlement(run, Outcome(retry_after=60.0, error="no"))])
    assert worker.pending.due(10) == []
    redis.zadd(retries(keys), {run.pending.entry_id: 0})
    other = follower(redis, keys, "c2")
    assert ids(other.pending.due(10)) == ["ev1"]
    assert worker.pending.due(10) == []


def test_a_due_retry_whose_taker_died_is_due_again_after_an_event_lease(redis, keys, publish):
    publish("ev1")
    worker = follower(redis, keys, "c1", SOON)
    guard = Guard(redis, keys, "workers", SOON, "w1")
    (run,) = guard.claim(worker.read(10))
    assert isinstance(run, Run)
    guard.settle([Settlement(run, Outcome(retry_after=0.0, error="no"))])
    assert ids(worker.pending.due(10)) == ["ev1"]
    deadline = time.monotonic() + 5
    while not (again := worker.pending.due(10)):
        assert time.monotonic() < deadline
    assert ids(again) == ["ev1"]


def test_a_retry_of_a_stream_that_is_not_read_here_is_left_to_others(redis, keys, publish):
    publish("ev1")
    others = keys.retries_of("workers", keys.stream("approval.approval.updated_v4"))
    redis.zadd(others, {"1-1": 0})
    assert follower(redis, keys, "c1").pending.due(10) == []
    assert redis.zscore(others, "1-1") == 0


def test_a_retry_whose_entry_is_gone_is_forgotten(redis, keys, worker):
    redis.zadd(retries(keys), {"1-1": 0})
    assert worker.pending.due(10) == []
    assert redis.zcard(retries(keys)) == 0


def test_due_retries_of_a_capped_stream_do_not_hide_those_of_others(redis, keys, worker, publish):
    publish(*(f"ev{number}" for number in range(3)))
    publish("other", event_type=CONTACT)
    for item in worker.read(100):
        redis.zadd(keys.retries_of("workers", item.stream), {item.entry_id: 2})
    redis.zadd(retries(keys), {f"9-{number}": 1 for number in range(2500)})
    assert ids(worker.pending.due(10, {keys.stream(IM): 0})) == ["other"]
    redis.zremrangebyscore(retries(keys), 1, 1)
    assert len(worker.pending.due(10, {keys.stream(IM): 2})) == 2
    assert len(worker.pending.due(10)) == 1


def test_retries_of_a_stream_that_nobody_takes_hide_no_others(redis, keys, worker, publish):
    publish("ev1")
    (item,) = worker.read(10)
    redis.zadd(retries(keys), {item.entry_id: time.time() * 1000})
    others = keys.retries_of("workers", keys.stream("approval.approval.updated_v4"))
    redis.zadd(others, {f"{number}-1": number for number in range(10_001)})
    assert ids(worker.pending.due(100)) == ["ev1"]


def test_a_stream_with_many_retries_leaves_room_for_those_of_others(redis, keys, worker, publish):
    publish(*(f"ev{number}" for number in range(100)))
    publish("other", event_type=CONTACT)
    held = worker.read(1000)
    for number, item in enumerate(held):
        redis.zadd(keys.retries_of("workers", item.stream), {item.entry_id: 1 + number})
    taken = ids(worker.pending.due(10))
    assert len(taken) == 10
    assert "other" in taken
    assert len(worker.pending.due(1000)) == len(held) - 10


def test_members_of_the_retries_that_are_no_entry_are_removed_and_told(
    redis, keys, worker, publish
):
    publish("ev1")
    (item,) = worker.read(10)
    odd = ["", "x", b"\xff-1", "1", "1-", f"{10**25}-1", f"{item.stream}|{item.entry_id}"]
    redis.zadd(retries(keys), {each: number for number, each in enumerate(odd)})
    redis.zadd(retries(keys), {item.entry_id: 100})
    with capture_logs() as logs:
        assert ids(worker.pending.due(100)) == ["ev1"]
    assert [(each["event"], each["members"]) for each in logs] == [("retry.malformed", len(odd))]
    assert redis.zcard(retries(keys)) == 1


def test_acknowledged_entries_are_pending_no_more(redis, keys, worker, publish):
    publish("ev1", "ev2")
    worker.pending.acknowledge(worker.read(10))
    assert redis.xpending(keys.stream(IM), "workers")["pending"] == 0


def test_the_retry_of_an_acknowledged_duplicate_is_forgotten(redis, keys, worker, publish):
    publish("ev1")
    held = worker.read(10)
    far_retries(redis, keys, held)
    worker.pending.acknowledge(held)
    assert redis.zcard(retries(keys)) == 0


class TestEntriesThatAreMissing:
    """Trimmed or deleted by hand while pending: dropped and told, for nobody else will."""

    def test_one_of_our_own(self, redis, keys, worker, publish):
        publish("ev1", "ev2")
        item, other = worker.read(10)
        redis.xdel(item.stream, item.entry_id)
        with capture_logs() as logs:
            assert ids(worker.own()) == [other.entry.event_id]
            assert ids(worker.own()) == [other.entry.event_id]
        assert missing(logs) == [item.entry_id]
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 1

    def test_one_of_a_dead_worker(self, redis, keys, worker, publish):
        publish("ev1", "ev2")
        other = follower(redis, keys, "c2")
        for item in other.read(10):
            long_ago(redis, keys, "c2", item.entry_id)
        redis.xtrim(keys.stream(IM), maxlen=1, approximate=False)
        with capture_logs() as logs:
            assert ids(worker.pending.take_over(10)) == ["ev2"]
        assert len(missing(logs)) == 1
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 1

    def test_one_whose_retry_is_due(self, redis, keys, worker, publish):
        entry_id = publish("ev1")
        (item,) = worker.read(10)
        redis.zadd(retries(keys), {entry_id: 0})
        redis.xdel(item.stream, entry_id)
        with capture_logs() as logs:
            assert worker.pending.due(10) == []
        assert missing(logs) == [entry_id]
        assert redis.zcard(retries(keys)) == 0
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 0

    def test_one_that_waits_for_a_retry_goes_from_the_retries_too(
        self, redis, keys, worker, publish
    ):
        entry_id = publish("ev1")
        other = follower(redis, keys, "c2")
        far_retries(redis, keys, other.read(10))
        long_ago(redis, keys, "c2", entry_id)
        redis.xdel(keys.stream(IM), entry_id)
        with capture_logs() as logs:
            worker.pending.take_over(10)
            worker.pending.take_over(10)
        assert missing(logs) == [entry_id]
        assert redis.zcard(retries(keys)) == 0

    def test_one_that_was_settled_meanwhile_is_not_missing(self, redis, keys, worker, publish):
        """The one who settles an entry removes its retry."""
        publish("ev1")
        (item,) = worker.read(10)
        redis.zadd(retries(keys), {item.entry_id: 0})
        worker.pending.acknowledge([item])
        redis.zadd(retries(keys), {item.entry_id: 0})
        claim = worker.pending._claim

        def settled_first(taken: Any) -> Any:
            redis.zrem(retries(keys), item.entry_id)
            return claim(taken)

        worker.pending._claim = settled_first
        with capture_logs() as logs:
            assert worker.pending.due(10) == []
        assert missing(logs) == []


class TestEntriesThatWaitForAFarRetry:
    """There may be very many, and claiming each of them again and again would be a storm."""

    COUNT = 1500

    @pytest.fixture
    def waiting(self, redis, keys, publish) -> list[Any]:
        publish(*(f"ev{number}" for number in range(self.COUNT)))
        held = follower(redis, keys, "c1").read_all()
        assert len(held) == self.COUNT
        far_retries(redis, keys, held)
        return held

    def test_they_are_no_lost_replies(self, redis, keys, waiting, publish):
        publish("lost")
        worker = follower(redis, keys, "c1")
        worker.read(10)
        assert ids(worker.own()) == ["lost"]

    def test_they_are_not_taken_over(self, redis, keys, waiting, publish):
        dead = publish("dead")
        follower(redis, keys, "c2").read(10)
        for entry_id in (waiting[0].entry_id, dead):
            long_ago(redis, keys, "c2", entry_id)
        assert ids(follower(redis, keys, "c3").pending.take_over(10)) == ["dead"]

    def test_they_are_taken_over_when_the_retry_is_near(self, redis, keys, waiting):
        """It may be a mark that someone takes care of it who died."""
        item = waiting[-1]
        soon = (time.time() + 20) * 1000
        redis.zadd(retries(keys), {item.entry_id: soon})
        long_ago(redis, keys, "c1", item.entry_id)
        assert ids(follower(redis, keys, "c3").pending.take_over(10)) == [item.entry.event_id]


def test_far_retries_cost_a_look_no_more_for_little_room(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(1000)))
    dead = follower(redis, keys, "dead")
    held = dead.read_all()
    for each in held:
        long_ago(redis, keys, "dead", each.entry_id)
    far_retries(redis, keys, held)
    taker = follower(redis, keys, "c1")
    redis.config_resetstat()
    assert taker.pending.take_over(1) == []
    assert redis.info("commandstats")["cmdstat_xautoclaim"]["calls"] <= 20
