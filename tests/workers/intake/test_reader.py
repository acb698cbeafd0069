"""The reader: what is new, streams and groups that come and go, consumers that are swept."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.scripts import Script, load
from flybridge.bridge.store.streams import Keys
from flybridge.workers.claim.claims import Duplicate, Settlement
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.reader import StreamReader
from flybridge.workers.operate.groups import Groups
from tests.workers.follower import (
    CONTACT,
    IM,
    Follower,
    consumers,
    follower,
    ids,
    long_ago,
    missing,
)


@pytest.fixture
def server(either_server: EmbeddedRedis) -> EmbeddedRedis:
    return either_server


def test_events_published_before_the_first_worker_came_are_read(redis, keys, publish):
    publish("ev1", "ev2")
    assert ids(follower(redis, keys, "c1").read(10)) == ["ev1", "ev2"]


def test_an_entry_goes_to_one_consumer_of_a_group(redis, keys, worker, publish):
    other = follower(redis, keys, "c2")
    publish("ev1")
    assert ids(worker.read(10)) == ["ev1"]
    assert ids(other.read(10)) == []


def test_no_more_is_read_than_there_is_room_for(worker, publish):
    publish(*(f"ev{number}" for number in range(10)))
    assert len(worker.read(4)) <= 4


def test_a_quiet_stream_is_read_although_another_is_busy(worker, publish):
    publish(*(f"ev{number}" for number in range(100)))
    worker.read(2)
    publish("quiet", event_type=CONTACT)
    found = [event_id for _ in range(8) for event_id in ids(worker.read(2))]
    assert "quiet" in found
    assert len(found) > 8


def test_nothing_is_read_where_nothing_is_followed(redis, keys):
    reader = StreamReader(Consumer(redis, keys, "workers", "c1"), 30.0)
    assert reader.read(10, 0.01) == []


def test_a_capped_stream_gives_no_more_than_its_cap(keys, worker, publish):
    publish(*(f"ev{number}" for number in range(10)))
    publish("other", event_type=CONTACT)
    assert len(worker.reader.read(100, 0.01, {keys.stream(IM): 3})) == 4


def test_a_stream_with_a_cap_of_nothing_is_left_alone(keys, worker, publish):
    publish(*(f"ev{number}" for number in range(10)))
    assert ids(worker.read(4)) == ["ev0", "ev1"]
    assert worker.reader.read(4, 0.01, {keys.stream(IM): 0}) == []
    publish("other", event_type=CONTACT)
    assert ids(worker.reader.read(4, 0.01, {keys.stream(IM): 0})) == ["other"]
    assert worker.reader.read(4, 0.01, dict.fromkeys(worker.reader.streams, 0)) == []


def test_the_types_that_the_bridge_has_opened_are_known(worker, publish):
    publish("ev1", event_type=CONTACT)
    assert worker.reader.known_types() == {CONTACT}


def test_groups_lost_by_redis_are_made_anew(redis, keys, worker, publish):
    publish("ev1")
    redis.flushall()
    publish("ev2")
    worker.reader.make_groups_again()
    assert ids(worker.read(10)) == ["ev2"]


def test_a_group_made_anew_is_given_old_entries_again_and_runs_none(
    redis, keys, worker, guard, publish
):
    publish("ev1", "ev2")
    runs = guard.claim(worker.read(10))
    guard.settle([Settlement(run, Outcome()) for run in runs])
    redis.xgroup_destroy(keys.stream(IM), "workers")
    worker.reader.make_groups_again()
    again = worker.read(10)
    assert ids(again) == ["ev1", "ev2"]
    assert [type(claim) for claim in guard.claim(again)] == [Duplicate, Duplicate]


DAY = 86_400_000


def published_days_ago(redis: Redis, keys: Keys, *days: float) -> None:
    """One event each, named by its age; the oldest first."""
    now = int(time.time() * 1000)
    for each in days:
        fields = {"event_id": str(each), "event_type": IM, "envelope": "{}"}
        redis.xadd(keys.stream(IM), fields, id=f"{now - int(each * DAY)}-0")


def test_a_group_that_has_never_been_there_is_given_all_however_old(redis, keys):
    published_days_ago(redis, keys, 3, 0.5)
    assert ids(follower(redis, keys, "c1").read(10)) == ["3", "0.5"]


@pytest.mark.parametrize("forget", [True, False])
def test_a_group_made_anew_is_not_given_what_its_marks_tell_no_more_of(
    redis, keys, worker, guard, forget
):
    published_days_ago(redis, keys, 3, 0.5)
    runs = guard.claim(worker.read(10))
    guard.settle([Settlement(run, Outcome()) for run in runs])
    redis.delete(keys.state("workers", "3"))  # for another group holds the entry
    if forget:
        Groups(redis, keys, "me").forget("workers")
    redis.xgroup_destroy(keys.stream(IM), "workers")
    assert ids(follower(redis, keys, "c2").read(10)) == ["0.5"]


def test_a_forgotten_group_is_given_what_it_had_not_been_given_however_old(redis, keys, worker):
    published_days_ago(redis, keys, 3)
    worker.read(10)
    published_days_ago(redis, keys, 2, 0.5)
    Groups(redis, keys, "me").forget("workers")
    assert ids(follower(redis, keys, "c2").read(10)) == ["2", "0.5"]


def test_replayed_events_are_given_to_a_group_made_anew_however_old(redis, keys, worker):
    replays = keys.replay("workers", IM)
    redis.xadd(replays, {"event_id": "e", "event_type": IM, "envelope": "{}"}, id="1-0")
    for _ in range(2):
        worker.reader.follow([replays])
        worker.reader.make_groups_again()
        assert ids(worker.read(10)) == ["e"]
        redis.xgroup_destroy(replays, "workers")


def test_a_key_that_is_no_stream_keeps_nobody_from_the_others(redis, keys, publish):
    redis.set(keys.stream(CONTACT), "x")
    publish("ev1")
    with capture_logs() as logs:
        worker = follower(redis, keys, "c1")
        worker.reader.follow([keys.stream(IM), keys.stream(CONTACT)])
        assert ids(worker.read(10)) == ["ev1"]
    assert [(line["event"], line["stream"]) for line in logs] == [
        ("stream.unreadable", keys.stream(CONTACT))
    ]
    redis.delete(keys.stream(CONTACT))
    worker.reader.follow([keys.stream(IM), keys.stream(CONTACT)])
    publish("ev2", event_type=CONTACT)
    assert "ev2" in [event_id for _ in range(4) for event_id in ids(worker.read(10))]


def test_a_worker_that_starts_on_a_full_redis_can_drain_it(redis, keys, publish, full):
    """Plain XGROUP CREATE would be refused, even for a group that exists."""
    publish(*(f"ev{number}" for number in range(4)))
    full()
    with pytest.raises(Exception, match="maxmemory"):
        redis.xadd(keys.stream(IM), {"a": "b"})
    worker = follower(redis, keys, "c1")
    first, *others = worker.read(10)
    assert len(others) == 3
    worker.pending.acknowledge([first])
    assert ids(worker.own()) == ids(others)
    long_ago(redis, keys, "c1", others[0].entry_id)
    other = follower(redis, keys, "c2")
    assert ids(other.pending.take_over(10)) == [others[0].entry.event_id]
    other.reader.sweep()
    worker.reader.leave()
    assert consumers(redis, keys) == {"c2": 1, "left": 2}


def test_who_leaves_is_removed_and_what_it_held_is_for_others(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(250)))
    leaver, stayer = follower(redis, keys, "c1"), follower(redis, keys, "c2")
    held = leaver.read_all()
    long_ago(redis, keys, "c1", held[0].entry_id)
    leaver.reader.leave()
    names = [each["name"] for each in redis.xinfo_consumers(keys.stream(IM), "workers")]
    assert b"c1" not in names
    assert redis.xpending(keys.stream(IM), "workers")["pending"] == 250
    assert ids(stayer.pending.take_over(1000)) == [held[0].entry.event_id]


def test_who_leaves_and_holds_nothing_leaves_nothing_behind(redis, keys, worker):
    worker.read(10)
    worker.reader.leave()
    assert redis.xinfo_consumers(keys.stream(IM), "workers") == []


def test_an_entry_that_is_missing_when_its_worker_leaves_is_told(redis, keys, worker, publish):
    publish("ev1", "ev2")
    item, _ = worker.read(10)
    redis.xdel(item.stream, item.entry_id)
    with capture_logs() as logs:
        worker.reader.leave()
    assert missing(logs) == [item.entry_id]
    assert consumers(redis, keys) == {"left": 1}


def test_leaving_a_group_that_is_gone_is_no_error(redis, keys, worker):
    redis.flushall()
    worker.reader.leave()


class TestSweeping:
    @pytest.fixture
    def short(self, monkeypatch):
        """What is idle at all has been idle for long enough."""
        monkeypatch.setattr("flybridge.workers.intake.reader.SWEEP_AFTER", 0.0)
        return 0.0

    def swept(self, redis: Redis, keys: Keys, worker: Follower, name: str) -> None:
        deadline = time.monotonic() + 5
        while name in consumers(redis, keys):
            assert time.monotonic() < deadline
            worker.reader.sweep()

    def test_the_consumer_of_a_dead_worker_goes_and_the_caller_stays(
        self, redis, keys, publish, short
    ):
        publish("ev1")
        dead = follower(redis, keys, "dead")
        dead.pending.acknowledge(dead.read(10))
        worker = follower(redis, keys, "c1", event_lease=short)
        redis.xgroup_createconsumer(keys.stream(IM), "workers", "c1")
        self.swept(redis, keys, worker, "dead")
        assert consumers(redis, keys) == {"c1": 0}

    def test_one_with_pending_entries_stays_until_they_were_taken_over(
        self, redis, keys, publish, short
    ):
        publish("ev1")
        (item,) = follower(redis, keys, "dead").read(10)
        worker = follower(redis, keys, "c1", event_lease=short)
        redis.xgroup_createconsumer(keys.stream(IM), "workers", "empty")
        self.swept(redis, keys, worker, "empty")
        assert consumers(redis, keys) == {"dead": 1}
        assert ids(worker.pending.take_over(10)) == ["ev1"]
        self.swept(redis, keys, worker, "dead")
        assert ids(worker.own()) == [item.entry.event_id]

    @pytest.mark.parametrize("event_lease", [0.0, 3600.0])
    def test_one_that_was_there_a_moment_ago_stays(self, redis, keys, publish, event_lease):
        publish("ev1")
        other = follower(redis, keys, "c2")
        other.pending.acknowledge(other.read(10))
        follower(redis, keys, "c1", event_lease).reader.sweep()
        assert consumers(redis, keys) == {"c2": 0}

    def test_a_long_event_lease_is_heeded(self, redis, keys, publish, short):
        publish("ev1")
        other = follower(redis, keys, "c2")
        other.pending.acknowledge(other.read(10))
        gone = follower(redis, keys, "c1", event_lease=short)
        follower(redis, keys, "c3", event_lease=30.0).reader.sweep()
        assert consumers(redis, keys) == {"c2": 0}
        self.swept(redis, keys, gone, "c2")

    def test_what_the_leaver_left_is_kept_until_it_was_taken_over(self, redis, keys, publish):
        entry_id = publish("ev1")
        leaver = follower(redis, keys, "c2")
        leaver.read(10)
        leaver.reader.leave()
        worker = follower(redis, keys, "c1")
        worker.reader.sweep()
        assert consumers(redis, keys) == {"left": 1}
        long_ago(redis, keys, "left", entry_id)
        assert ids(worker.pending.take_over(10)) == ["ev1"]
        worker.reader.sweep()
        assert consumers(redis, keys) == {"c1": 1}

    def test_a_live_worker_that_lost_its_consumer_while_waiting_reads_on(
        self, redis, keys, publish, short
    ):
        """Redis 7.0 counts a consumer as idle that reads and is given nothing."""
        found: list[Any] = []
        waiter = follower(redis, keys, "c2")
        redis.xgroup_createconsumer(keys.stream(IM), "workers", "c2")
        thread = threading.Thread(target=lambda: found.extend(waiter.reader.read(10, 5.0)))
        thread.start()
        deadline = time.monotonic() + 5
        while not redis.info("clients")["blocked_clients"]:
            assert time.monotonic() < deadline
        self.swept(redis, keys, follower(redis, keys, "c1", event_lease=short), "c2")
        publish("ev1")
        thread.join()
        assert ids(found) == ["ev1"]
        assert consumers(redis, keys) == {"c2": 1}

    def test_sweeping_where_the_group_is_gone_is_no_error(self, redis, keys, worker):
        redis.flushall()
        worker.reader.sweep()

    def test_streams_that_change_meanwhile_do_no_harm(self, redis, keys, worker, monkeypatch):
        """Another thread follows what is new."""

        def late(name: str) -> Script:
            if name == "sweep":
                worker.reader.follow([keys.stream(IM)])
            return load(name)

        monkeypatch.setattr("flybridge.workers.intake.reader.load", late)
        worker.reader.sweep()
        assert worker.reader.streams == (keys.stream(IM),)
