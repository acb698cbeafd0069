"""Reads are bounded in bytes, however large the events are."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.pending_list import PendingList
from flybridge.workers.intake.read_size import BYTES, FORGETTING, MAX_ENTRIES, UNKNOWN, ReadSizes
from flybridge.workers.intake.reader import StreamReader
from tests.workers.follower import CONTACT, IM, Follower, follower, ids

MIB = 1024 * 1024
LARGE = b" " * MIB


def add(redis: Redis, keys: Keys, event_type: str, count: int, envelope: bytes) -> None:
    for number in range(count):
        event_id = f"{len(envelope)}-{number}"
        entry = Entry(event_id, event_type, "app", "tk", "2.0", 1, 2, 3, "", "", envelope)
        fields: Any = entry.fields()
        redis.xadd(keys.stream(event_type), dict(zip(fields[::2], fields[1::2], strict=True)))


def test_what_a_stream_gave_of_late_tells_how_many_to_ask_for() -> None:
    sizes = ReadSizes()
    assert sizes.most(["s"]) == BYTES // UNKNOWN
    sizes.note("s", 2 * MIB)
    assert sizes.most(["s"]) == BYTES // (2 * MIB)
    assert sizes.most(["s", "t"]) < BYTES // (2 * MIB)
    sizes.note("s", 100 * MIB)
    assert sizes.most(["s"]) == 1
    for _ in range(100):
        sizes.note("s", 10)
    assert sizes.most(["s"]) == MAX_ENTRIES


def test_a_large_entry_is_remembered_for_some_reads() -> None:
    sizes = ReadSizes()
    sizes.note("s", 8 * MIB)
    sizes.note("s", 10)
    assert sizes.most(["s"]) == int(BYTES / (8 * MIB * FORGETTING))


def test_large_events_come_in_small_reads_and_others_beside_them(
    redis: Redis, keys: Keys, worker: Follower
) -> None:
    add(redis, keys, IM, 60, LARGE)
    worker.read(1)
    for _ in range(10):
        found = worker.read(2000)
        assert sum(len(item.entry.envelope) for item in found) <= BYTES
    add(redis, keys, CONTACT, 5, b"{}")
    seen: list[str] = []
    for _ in range(5):
        seen += [item.entry.event_type for item in worker.read(2000)]
    assert seen.count(CONTACT) == 5


@pytest.mark.parametrize("whose", ["own", "take over", "due"])
def test_large_events_come_again_in_small_reads_too(
    redis: Redis, keys: Keys, worker: Follower, whose: str
) -> None:
    add(redis, keys, IM, 20, LARGE)
    held = worker.read_all()
    assert len(held) == 20
    retries = keys.retries_of("workers", keys.stream(IM))
    if whose == "due":
        redis.zadd(retries, {item.entry_id: 1 for item in held})
    consumer = Consumer(redis, keys, "workers", "c1" if whose == "own" else "c2")
    again = Follower(
        StreamReader(consumer, 30), PendingList(consumer, 30 if whose == "due" else 0.001)
    )
    again.reader.follow([keys.stream(IM)])
    consumer.sizes.note(keys.stream(IM), len(LARGE))
    redis.config_resetstat()
    found: list[Any] = []
    look = {
        "own": again.own,
        "take over": lambda: again.pending.take_over(100),
        "due": lambda: again.pending.due(100),
    }[whose]
    looks = 0
    while len(found) < 20:
        found += look()
        looks += 1
        assert looks < 30
    assert sorted(ids(found)) == sorted(ids(held))
    claims = redis.info("commandstats")["cmdstat_xclaim"]["calls"]
    assert claims >= 20 / (BYTES // len(LARGE))


class TestALongPendingList:
    """It is looked through by and by: the streams beside it, and the renewals, wait for nobody."""

    COUNT = 3_000

    @pytest.fixture
    def held(self, redis: Redis, keys: Keys) -> list[Any]:
        add(redis, keys, IM, self.COUNT, b"{}")
        add(redis, keys, CONTACT, 1, b"{}")
        return follower(redis, keys, "c1").read_all()

    def test_a_lost_reply_brings_no_more_than_there_is_room_for(
        self, redis: Redis, keys: Keys, held: list[Any]
    ) -> None:
        worker = follower(redis, keys, "c1")
        assert worker.pending.own(10) == [], "no reply was lost"
        worker.pending.doubt()
        found: list[Any] = []
        while new := worker.pending.own(100):
            assert len(new) <= 100
            found += new
        assert sorted(ids(found)) == sorted(ids(held))
        worker.pending.doubt()
        assert worker.pending.own(100), "it begins anew"

    def test_one_look_does_not_go_through_all_of_it(
        self, redis: Redis, keys: Keys, held: list[Any]
    ) -> None:
        for item in held:
            if item.stream == keys.stream(IM):
                redis.zadd(keys.retries_of("workers", item.stream), {item.entry_id: 1e15})
        worker = follower(redis, keys, "c2", 0.001)
        redis.config_resetstat()
        assert [item.stream for item in worker.pending.take_over(100)] == [keys.stream(CONTACT)]
        assert worker.pending.unfinished
        assert redis.info("commandstats")["cmdstat_xautoclaim"]["calls"] <= 12
        worker.pending.take_over(100, {keys.stream(IM): 0})
        assert not worker.pending.unfinished, "none of it is wanted now"
        worker.pending.take_over(100)
        looks = 0
        while worker.pending.unfinished:
            worker.pending.take_over(100)
            looks += 1
            assert looks < 10

    def test_who_leaves_hands_it_on_a_page_at_a_time(
        self, redis: Redis, keys: Keys, held: list[Any]
    ) -> None:
        gone = [item.entry_id for item in held[:7]]
        redis.xdel(keys.stream(IM), *gone)
        redis.config_resetstat()
        redis.config_set("slowlog-log-slower-than", 50_000)
        with capture_logs() as logs:
            follower(redis, keys, "c1").reader.leave()
        assert [(line["entry"], line["count"]) for line in logs] == [(gone[0], 7)]
        consumers: Any = redis.xinfo_consumers(keys.stream(IM), "workers")
        assert [each["name"] for each in consumers] == [b"left"]
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == self.COUNT - 7
        stats = redis.info("commandstats")
        assert stats["cmdstat_xclaim"]["calls"] / stats["cmdstat_evalsha"]["calls"] <= 200

    def test_who_holds_too_much_to_hand_on_leaves_it_to_be_taken_over(
        self, redis: Redis, keys: Keys, held: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flybridge.workers.intake.reader.LEAVE_TIMEOUT", 0.0001)
        with capture_logs() as logs:
            follower(redis, keys, "c1").reader.leave()
        assert [line["event"] for line in logs] == ["consumer.stays"]
        other = follower(redis, keys, "c2", 0.001)
        assert len(other.pending.take_over(5_000)) == 1000 + 1
