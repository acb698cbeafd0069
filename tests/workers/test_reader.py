"""The reader: what is new, what was lost on the way, what the dead left behind, what is due."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from bridge.local.valkey import EmbeddedRedis
from bridge.streams import Keys
from workers.claims import Duplicate, Run, Settlement
from workers.guard import Guard
from workers.outcomes import Outcome
from workers.presence import AT_WORK, Worker, present
from workers.reader import StreamReader

IM, CONTACT = "im.message.receive_v1", "contact.user.created_v3"

SOON = 0.05
"""Seconds; an event lease short enough to wait for."""


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """The oldest Redis that we serve on PATH, and a Valkey of today."""
    binary = None
    if request.param == "redis":
        binary = shutil.which("redis-server")
        if binary is None:
            assert not os.environ.get("CI"), "redis-server is not on PATH"
            pytest.skip("redis-server is not on PATH")
    with EmbeddedRedis(binary=binary) as embedded:
        yield embedded


@pytest.fixture
def full(redis: Redis) -> Iterator[Callable[[], None]]:
    """Call it, and Redis refuses to grow from then on."""
    yield lambda: redis.config_set("maxmemory", 1)
    redis.config_set("maxmemory", 0)


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


def far_retries(redis: Redis, keys: Keys, items: list[Any]) -> None:
    """Have these entries wait for a retry in an hour."""
    due = (time.time() + 3600) * 1000
    members = {f"{item.stream}|{item.entry_id}": due for item in items}
    redis.zadd(keys.retries("workers"), members)


def consumers(redis: Redis, keys: Keys) -> dict[str, int]:
    """Name -> pending."""
    found: Any = redis.xinfo_consumers(keys.stream(IM), "workers")
    return {each["name"].decode(): each["pending"] for each in found}


def missing(logs: list[Any]) -> list[str]:
    return [line["entry"] for line in logs if line["event"] == "entry.missing"]


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
    assert len(lost) == 1000, "for there are two streams"
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
    assert len(taken) == 150
    assert len(set(ids(taken))) == 150


def test_what_there_was_no_room_for_can_be_taken_over_at_once(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(10)))
    dead = follower(redis, keys, "dead")
    for held in dead.read(20, SOON):
        long_ago(redis, keys, "dead", held.entry_id)
    taker, other = follower(redis, keys, "c1"), follower(redis, keys, "c2")
    taken = [*taker.take_over(3), *taker.take_over(3), *other.take_over(3), *taker.take_over(3)]
    assert sorted(ids(taken)) == [f"ev{number}" for number in range(10)]
    assert taker.take_over(3) == []


def test_far_retries_cost_a_look_no_more_for_little_room(redis, keys, publish):
    publish(*(f"ev{number}" for number in range(1000)))
    dead = follower(redis, keys, "dead")
    held = dead.read(2000, SOON)
    for each in held:
        long_ago(redis, keys, "dead", each.entry_id)
    far_retries(redis, keys, held)
    taker = follower(redis, keys, "c1")
    redis.config_resetstat()
    assert taker.take_over(1) == []
    assert redis.info("commandstats")["cmdstat_xautoclaim"]["calls"] <= 20


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


GOOD = {"event_id": "spoilt", "event_type": IM, "term": "1", "envelope": "{}"}


class TestEntriesThatNobodyCanRead:
    """Written by hand, say. They become dead letters and stop nothing else."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"hello": "world"},
            {**GOOD, "event_id": ""},
            {**GOOD, "event_id": b"\xff"},
            {**GOOD, "term": "seven"},
            {**GOOD, "created_at": "9" * 5000},
            {**GOOD, "received_at": b"\xff\xfe"},
            {**GOOD, "tenant_key": b"\xed\xa0\x80"},
            {f"field {number}": "x" for number in range(5000)},
        ],
        ids=["foreign", "no id", "id", "word", "digits", "bytes", "surrogate", "many fields"],
    )
    def test_the_others_of_the_same_read_are_read(self, redis, keys, reader, publish, fields):
        publish("before")
        spoilt = redis.xadd(keys.stream(IM), fields)
        publish("after")
        before = time.time()
        with capture_logs() as logs:
            assert ids(reader.read(10, 0.01)) == ["before", "after"]
        assert [line["event"] for line in logs] == ["entry.buried"]
        ((_, letter),) = redis.xrange(keys.dead("workers"))
        assert letter[b"reason"] == b"decode"
        assert len(letter[b"error"]) <= 1024
        assert (letter[b"stream"], letter[b"entry"]) == (keys.stream(IM).encode(), spoilt)
        assert (letter[b"handler"], letter[b"attempts"], letter[b"finished"]) == (b"", b"0", b"")
        assert abs(int(letter[b"died_at"]) / 1000 - before) < 5
        kept = [name for name in redis.xrange(keys.stream(IM))[1][1] if name in letter]
        assert len(kept) == min(500, len(fields))
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 2

    def test_a_lost_reply_makes_no_second_letter(self, redis, keys, reader, publish):
        entry_id = redis.xadd(keys.stream(IM), {"hello": "world"})
        publish("ev1")
        reader.read(10, 0.01)
        with capture_logs() as logs:
            reader._bury(keys.stream(IM), [(entry_id.decode(), "once more")])
        assert logs == []
        assert redis.xlen(keys.dead("workers")) == 1

    def test_a_full_redis_takes_the_letter(self, redis, keys, reader, publish, full):
        redis.xadd(keys.stream(IM), {"hello": "world"})
        publish("ev1")
        full()
        assert ids(reader.read(10, 0.01)) == ["ev1"]
        assert redis.xlen(keys.dead("workers")) == 1

    def test_a_spoilt_key_of_dead_letters_stops_no_other_entry(self, redis, keys, reader, publish):
        redis.set(keys.dead("workers"), "x")
        redis.xadd(keys.stream(IM), {"hello": "world"})
        publish("ev1")
        with capture_logs() as logs:
            assert ids(reader.read(10, 0.01)) == ["ev1"]
        assert [line["event"] for line in logs] == ["entry.stuck"]
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 2

    def test_one_that_a_dead_worker_left_is_buried_by_who_takes_over(
        self, redis, keys, reader, publish
    ):
        entry_id = redis.xadd(keys.stream(IM), {"hello": "world"})
        redis.xreadgroup("workers", "c2", {keys.stream(IM): ">"})
        long_ago(redis, keys, "c2", entry_id)
        assert reader.take_over(10) == []
        assert redis.xlen(keys.dead("workers")) == 1


class TestEntriesThatAreMissing:
    """Trimmed or deleted by hand while pending: dropped and told, for nobody else will."""

    def test_one_of_our_own(self, redis, keys, reader, publish):
        publish("ev1", "ev2")
        item, other = reader.read(10, 0.01)
        redis.xdel(item.stream, item.entry_id)
        with capture_logs() as logs:
            assert ids(reader.own_pending()) == [other.entry.event_id]
            assert ids(reader.own_pending()) == [other.entry.event_id]
        assert missing(logs) == [item.entry_id]
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 1

    def test_one_of_a_dead_worker(self, redis, keys, reader, publish):
        publish("ev1", "ev2")
        other = follower(redis, keys, "c2")
        for item in other.read(10, 0.01):
            long_ago(redis, keys, "c2", item.entry_id)
        redis.xtrim(keys.stream(IM), maxlen=1, approximate=False)
        with capture_logs() as logs:
            assert ids(reader.take_over(10)) == ["ev2"]
        assert len(missing(logs)) == 1
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 1

    def test_one_whose_retry_is_due(self, redis, keys, reader, publish):
        entry_id = publish("ev1")
        (item,) = reader.read(10, 0.01)
        redis.zadd(keys.retries("workers"), {f"{item.stream}|{entry_id}": 0})
        redis.xdel(item.stream, entry_id)
        with capture_logs() as logs:
            assert reader.due(10) == []
        assert missing(logs) == [entry_id]
        assert redis.zcard(keys.retries("workers")) == 0
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 0

    def test_one_that_waits_for_a_retry_goes_from_the_retries_too(
        self, redis, keys, reader, publish
    ):
        entry_id = publish("ev1")
        other = follower(redis, keys, "c2")
        far_retries(redis, keys, other.read(10, 0.01))
        long_ago(redis, keys, "c2", entry_id)
        redis.xdel(keys.stream(IM), entry_id)
        with capture_logs() as logs:
            reader.take_over(10)
            reader.take_over(10)
        assert missing(logs) == [entry_id]
        assert redis.zcard(keys.retries("workers")) == 0

    def test_one_held_by_a_worker_that_leaves(self, redis, keys, reader, publish):
        publish("ev1", "ev2")
        item, _ = reader.read(10, 0.01)
        redis.xdel(item.stream, item.entry_id)
        with capture_logs() as logs:
            reader.leave()
        assert missing(logs) == [item.entry_id]
        assert consumers(redis, keys) == {"left": 1}

    def test_one_that_was_settled_meanwhile_is_not_missing(self, redis, keys, reader, publish):
        """The one who settles an entry removes its retry."""
        publish("ev1")
        (item,) = reader.read(10, 0.01)
        member = f"{item.stream}|{item.entry_id}"
        redis.zadd(keys.retries("workers"), {member: 0})
        reader.acknowledge([item])
        redis.zadd(keys.retries("workers"), {member: 0})
        claim = reader._claim
        reader._claim = lambda taken: (redis.zrem(keys.retries("workers"), member), claim(taken))[1]
        with capture_logs() as logs:
            assert reader.due(10) == []
        assert missing(logs) == []


class TestEntriesThatWaitForAFarRetry:
    """There may be very many, and claiming each of them again and again would be a storm."""

    COUNT = 1500

    @pytest.fixture
    def waiting(self, redis, keys, publish) -> list[Any]:
        publish(*(f"ev{number}" for number in range(self.COUNT)))
        held = follower(redis, keys, "c1").read(2 * self.COUNT, 0.01)
        assert len(held) == self.COUNT
        far_retries(redis, keys, held)
        return held

    def test_they_are_no_lost_replies(self, redis, keys, waiting, publish):
        publish("lost")
        reader = follower(redis, keys, "c1")
        reader.read(10, 0.01)
        assert ids(reader.own_pending()) == ["lost"]

    def test_they_are_not_taken_over(self, redis, keys, waiting, publish):
        dead = publish("dead")
        follower(redis, keys, "c2").read(10, 0.01)
        for entry_id in (waiting[0].entry_id, dead):
            long_ago(redis, keys, "c2", entry_id)
        assert ids(follower(redis, keys, "c3").take_over(10)) == ["dead"]

    def test_they_are_taken_over_when_the_retry_is_near(self, redis, keys, waiting):
        """It may be a mark that someone takes care of it who died."""
        item = waiting[-1]
        soon = (time.time() + 20) * 1000
        redis.zadd(keys.retries("workers"), {f"{item.stream}|{item.entry_id}": soon})
        long_ago(redis, keys, "c1", item.entry_id)
        assert ids(follower(redis, keys, "c3").take_over(10)) == [item.entry.event_id]


def test_the_retry_of_an_acknowledged_duplicate_is_forgotten(redis, keys, reader, publish):
    publish("ev1")
    held = reader.read(10, 0.01)
    far_retries(redis, keys, held)
    reader.acknowledge(held)
    assert redis.zcard(keys.retries("workers")) == 0


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


class TestSweeping:
    @pytest.fixture
    def short(self, monkeypatch):
        """What is idle at all has been idle for long enough."""
        monkeypatch.setattr("workers.reader.SWEEP_AFTER", 0.0)
        return 0.0

    def swept(self, redis: Redis, keys: Keys, reader: StreamReader, name: str) -> None:
        deadline = time.monotonic() + 5
        while name in consumers(redis, keys):
            assert time.monotonic() < deadline
            reader.sweep()

    def test_the_consumer_of_a_dead_worker_goes_and_the_caller_stays(
        self, redis, keys, publish, short
    ):
        publish("ev1")
        dead = follower(redis, keys, "dead")
        dead.acknowledge(dead.read(10, 0.01))
        reader = follower(redis, keys, "c1", event_lease=short)
        redis.xgroup_createconsumer(keys.stream(IM), "workers", "c1")
        self.swept(redis, keys, reader, "dead")
        assert consumers(redis, keys) == {"c1": 0}

    def test_one_with_pending_entries_stays_until_they_were_taken_over(
        self, redis, keys, publish, short
    ):
        publish("ev1")
        (item,) = follower(redis, keys, "dead").read(10, 0.01)
        reader = follower(redis, keys, "c1", event_lease=short)
        redis.xgroup_createconsumer(keys.stream(IM), "workers", "empty")
        self.swept(redis, keys, reader, "empty")
        assert consumers(redis, keys) == {"dead": 1}
        assert ids(reader.take_over(10)) == ["ev1"]
        self.swept(redis, keys, reader, "dead")
        assert ids(reader.own_pending()) == [item.entry.event_id]

    @pytest.mark.parametrize("event_lease", [0.0, 3600.0])
    def test_one_that_was_there_a_moment_ago_stays(self, redis, keys, publish, event_lease):
        publish("ev1")
        other = follower(redis, keys, "c2")
        other.acknowledge(other.read(10, 0.01))
        follower(redis, keys, "c1", event_lease).sweep()
        assert consumers(redis, keys) == {"c2": 0}

    def test_a_long_event_lease_is_heeded(self, redis, keys, publish, short):
        publish("ev1")
        other = follower(redis, keys, "c2")
        other.acknowledge(other.read(10, 0.01))
        gone = follower(redis, keys, "c1", event_lease=short)
        follower(redis, keys, "c3", event_lease=30.0).sweep()
        assert consumers(redis, keys) == {"c2": 0}
        self.swept(redis, keys, gone, "c2")

    def test_what_the_leaver_left_is_kept_until_it_was_taken_over(self, redis, keys, publish):
        entry_id = publish("ev1")
        leaver = follower(redis, keys, "c2")
        leaver.read(10, 0.01)
        leaver.leave()
        reader = follower(redis, keys, "c1")
        reader.sweep()
        assert consumers(redis, keys) == {"left": 1}
        long_ago(redis, keys, "left", entry_id)
        assert ids(reader.take_over(10)) == ["ev1"]
        reader.sweep()
        assert consumers(redis, keys) == {"c1": 1}

    def test_a_live_worker_that_lost_its_consumer_while_waiting_reads_on(
        self, redis, keys, publish, short
    ):
        """Redis 7.0 counts a consumer as idle that reads and is given nothing."""
        found: list[Any] = []
        waiter = follower(redis, keys, "c2")
        redis.xgroup_createconsumer(keys.stream(IM), "workers", "c2")
        thread = threading.Thread(target=lambda: found.extend(waiter.read(10, 5.0)))
        thread.start()
        deadline = time.monotonic() + 5
        while not redis.info("clients")["blocked_clients"]:
            assert time.monotonic() < deadline
        self.swept(redis, keys, follower(redis, keys, "c1", event_lease=short), "c2")
        publish("ev1")
        thread.join()
        assert ids(found) == ["ev1"]
        assert consumers(redis, keys) == {"c2": 1}

    def test_sweeping_where_the_group_is_gone_is_no_error(self, redis, keys, reader):
        redis.flushall()
        reader.sweep()


def test_a_worker_that_starts_on_a_full_redis_can_drain_it(redis, keys, publish, full):
    """Plain XGROUP CREATE would be refused, even for a group that exists."""
    publish(*(f"ev{number}" for number in range(4)))
    full()
    with pytest.raises(Exception, match="maxmemory"):
        redis.xadd(keys.stream(IM), {"a": "b"})
    reader = follower(redis, keys, "c1")
    first, *others = reader.read(10, 0.01)
    assert len(others) == 3
    reader.acknowledge([first])
    assert ids(reader.own_pending()) == ids(others)
    long_ago(redis, keys, "c1", others[0].entry_id)
    other = follower(redis, keys, "c2")
    assert ids(other.take_over(10)) == [others[0].entry.event_id]
    other.sweep()
    reader.leave()
    assert consumers(redis, keys) == {"c2": 1, "left": 2}


def test_a_key_that_is_no_stream_keeps_nobody_from_the_others(redis, keys, publish):
    redis.set(keys.stream(CONTACT), "x")
    publish("ev1")
    with capture_logs() as logs:
        reader = follower(redis, keys, "c1")
        reader.follow([keys.stream(IM), keys.stream(CONTACT)])
        assert ids(reader.read(10, 0.01)) == ["ev1"]
    assert [(line["event"], line["stream"]) for line in logs] == [
        ("stream.unreadable", keys.stream(CONTACT))
    ]
    redis.delete(keys.stream(CONTACT))
    reader.follow([keys.stream(IM), keys.stream(CONTACT)])
    publish("ev2", event_type=CONTACT)
    assert "ev2" in [event_id for _ in range(4) for event_id in ids(reader.read(10, 0.01))]


def test_a_group_made_anew_is_given_old_entries_again_and_runs_none(
    redis, keys, reader, guard, publish
):
    publish("ev1", "ev2")
    runs = guard.claim(reader.read(10, 0.01))
    guard.settle([Settlement(run, Outcome()) for run in runs])
    redis.xgroup_destroy(keys.stream(IM), "workers")
    reader.forget_groups()
    again = reader.read(10, 0.01)
    assert ids(again) == ["ev1", "ev2"]
    assert [type(claim) for claim in guard.claim(again)] == [Duplicate, Duplicate]


def test_leaving_a_group_that_is_gone_is_no_error(redis, keys, reader):
    redis.flushall()
    reader.leave()


def test_the_types_that_the_bridge_has_opened_are_known(reader, publish):
    publish("ev1", event_type=CONTACT)
    assert reader.known_types() == {CONTACT}


def test_a_capped_stream_gives_no_more_than_its_cap(keys, reader, publish):
    publish(*(f"ev{number}" for number in range(10)))
    publish("other", event_type=CONTACT)
    assert len(reader.read(100, 0.01, {keys.stream(IM): 3})) == 4


def test_a_stream_with_a_cap_of_nothing_is_left_alone(keys, reader, publish):
    publish(*(f"ev{number}" for number in range(10)))
    assert ids(reader.read(4, 0.01)) == ["ev0", "ev1"]
    assert reader.read(4, 0.01, {keys.stream(IM): 0}) == []
    publish("other", event_type=CONTACT)
    assert ids(reader.read(4, 0.01, {keys.stream(IM): 0})) == ["other"]
    assert reader.read(4, 0.01, dict.fromkeys(reader.streams, 0)) == []


def test_what_a_dead_worker_left_is_taken_over_within_the_cap(redis, keys, reader, publish):
    publish(*(f"ev{number}" for number in range(5)))
    for item in follower(redis, keys, "dead").read(100, 0.01):
        long_ago(redis, keys, "dead", item.entry_id)
    assert reader.take_over(100, {keys.stream(IM): 0}) == []
    assert len(reader.take_over(100, {keys.stream(IM): 2})) == 2


def test_due_retries_of_a_capped_stream_do_not_hide_those_of_others(redis, keys, reader, publish):
    publish(*(f"ev{number}" for number in range(3)))
    publish("other", event_type=CONTACT)
    retries = keys.retries("workers")
    for item in reader.read(100, 0.01):
        redis.zadd(retries, {f"{item.stream}|{item.entry_id}": 2})
    redis.zadd(retries, {f"{keys.stream(IM)}|9-{number}": 1 for number in range(2500)})
    assert ids(reader.due(10, {keys.stream(IM): 0})) == ["other"]
    redis.zremrangebyscore(retries, 1, 1)
    assert len(reader.due(10, {keys.stream(IM): 2})) == 2
    assert len(reader.due(10)) == 1


def subscriptions(redis: Redis, keys: Keys) -> set[bytes]:
    found: Any = redis.smembers(keys.subscriptions)
    return found


def test_a_subscription_is_noted_and_stays_when_less_is_read(reader, redis, keys):
    reader.subscribe(frozenset({"queue:im"}), ["im"])
    assert subscriptions(redis, keys) == {b"workers|queue:im"}
    reader.subscribe(frozenset({"*"}), ["im", "contact"])
    reader.subscribe(frozenset({"queue:im"}), ["im"])
    assert subscriptions(redis, keys) == {b"workers|queue:im", b"workers|*"}


def test_a_subscription_that_redis_forgot_is_noted_with_the_next_sign_of_life(reader, redis, keys):
    reader.subscribe(frozenset({"*"}), ["im"])
    for again in (reader.beat, reader.forget_groups):
        redis.delete(keys.subscriptions)
        again()
        assert subscriptions(redis, keys) == {b"workers|*"}


def test_a_worker_is_there_from_its_subscription_until_it_leaves(reader, redis, keys):
    assert present(redis, keys, "workers") == []
    reader.beat()
    assert present(redis, keys, "workers") == []
    reader.subscribe(frozenset(), [])
    reader.subscribe(frozenset({"queue:im", "queue:contact"}), ["im", "contact"])
    (worker,) = present(redis, keys, "workers")
    assert worker.started_at > 1.7e12
    assert replace(worker, started_at=0) == Worker(
        "c1", "workers", platform.node(), os.getpid(), 0, ("contact", "im")
    )
    reader.leave()
    assert not redis.exists(keys.workers("workers"))


def test_a_worker_on_a_full_redis_is_there(reader, redis, keys, full):
    full()
    reader.subscribe(frozenset({"*"}), ["im"])
    assert present(redis, keys, "workers")


def test_a_worker_that_is_silent_is_there_no_more_and_is_forgotten(redis, keys, reader):
    long_ago = time.time() * 1000 - AT_WORK * 1000 - 5000
    redis.zadd(keys.workers("workers"), {b'{"name":"dead"}': long_ago})
    assert present(redis, keys, "workers") == []
    reader.subscribe(frozenset({"*"}), ["im"])
    assert redis.zcard(keys.workers("workers")) == 1
    assert 0 < redis.pttl(keys.workers("workers")) <= AT_WORK * 1000


def test_a_reader_in_another_language_may_say_of_itself_what_it_likes(redis, keys):
    now = time.time() * 1000
    told = {b"analytics": now, b"3": now, b'{"name":"b","pid":7,"more":[]}': now}
    redis.zadd(keys.workers("workers"), told)
    found = present(redis, keys, "workers")
    assert found == [Worker("3"), Worker("analytics"), Worker("b", pid=7)]
