"""The consumer: what it is given can be read, or is buried and stops nothing else."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.handlers.registry import Registry
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.routes.ordering import Ordering
from tests.workers.follower import IM, ids, long_ago


@pytest.fixture
def server(either_server: EmbeddedRedis) -> EmbeddedRedis:
    return either_server


GOOD = {"event_id": "spoilt", "event_type": IM, "term": "1", "envelope": "{}"}


def test_a_stream_is_shown_to_other_threads_when_its_order_is_known(redis, keys):
    """Else another thread could take its pending entries for some without order."""
    seen: list[tuple[str, ...]] = []

    class Watched(Ordering):
        def of(self, stream: str) -> str:
            seen.append(consumer.streams)
            return "body.chat"

    consumer = Consumer(redis, keys, "workers", "c1", Watched(Registry()))
    consumer.follow(("s",))
    assert seen == [()]
    assert consumer.streams == ("s",)


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
    def test_the_others_of_the_same_read_are_read(self, redis, keys, worker, publish, fields):
        publish("before")
        spoilt = redis.xadd(keys.stream(IM), fields)
        publish("after")
        before = time.time()
        with capture_logs() as logs:
            assert ids(worker.read(10)) == ["before", "after"]
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

    def test_a_lost_reply_makes_no_second_letter(self, redis, keys, worker, publish):
        entry_id = redis.xadd(keys.stream(IM), {"hello": "world"})
        publish("ev1")
        worker.read(10)
        with capture_logs() as logs:
            consumer = Consumer(redis, keys, "workers", "c1")
            assert consumer.pending(keys.stream(IM), [(entry_id, {b"hello": b"world"})]) == []
        assert [line["event"] for line in logs] == ["entry.buried"], "the first was never heard"
        assert redis.xlen(keys.dead("workers")) == 1

    def test_its_retry_goes_too(self, redis, keys, worker):
        entry_id = redis.xadd(keys.stream(IM), {"hello": "world"})
        retries = keys.retries_of("workers", keys.stream(IM))
        redis.zadd(retries, {entry_id: 1})
        assert worker.read(10) == []
        assert not redis.exists(retries)
        with capture_logs() as logs:
            assert worker.pending.due(10) == []
        assert logs == []

    def test_a_repeated_call_makes_one_letter_and_says_the_same(self, redis, keys, worker):
        stream, dead = keys.stream(IM), keys.dead("workers")
        entry_id = redis.xadd(stream, {"hello": "world"})
        redis.xreadgroup("workers", "c1", {stream: ">"})
        retries = keys.retries_of("workers", stream)
        bury = Call(
            load("bury_unreadable"), (stream, dead, retries), ("workers", entry_id, "E: no")
        )
        assert run_all(redis, [bury]) == run_all(redis, [bury]) == [1]
        assert redis.xlen(dead) == 1
        redis.delete(dead)
        assert run_all(redis, [bury]) == [0], "acknowledged by somebody else"

    def test_a_full_redis_takes_the_letter(self, redis, keys, worker, publish, full):
        redis.xadd(keys.stream(IM), {"hello": "world"})
        publish("ev1")
        full()
        assert ids(worker.read(10)) == ["ev1"]
        assert redis.xlen(keys.dead("workers")) == 1

    def test_a_spoilt_key_of_dead_letters_stops_no_other_entry(self, redis, keys, worker, publish):
        redis.set(keys.dead("workers"), "x")
        redis.xadd(keys.stream(IM), {"hello": "world"})
        publish("ev1")
        with capture_logs() as logs:
            assert ids(worker.read(10)) == ["ev1"]
        assert [line["event"] for line in logs] == ["key.spoilt"]
        assert logs[0]["key"] == keys.dead("workers")
        assert redis.xpending(keys.stream(IM), "workers")["pending"] == 2

    def test_one_that_a_dead_worker_left_is_buried_by_who_takes_over(
        self, redis, keys, worker, publish
    ):
        entry_id = redis.xadd(keys.stream(IM), {"hello": "world"})
        redis.xreadgroup("workers", "c2", {keys.stream(IM): ">"})
        long_ago(redis, keys, "c2", entry_id)
        assert worker.pending.take_over(10) == []
        assert redis.xlen(keys.dead("workers")) == 1
