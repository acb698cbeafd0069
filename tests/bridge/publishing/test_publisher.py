"""The publisher on a real server, also one that dies, hangs and forgets its scripts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from flybridge.bridge.publishing import publisher as module
from flybridge.bridge.publishing.admission import CALM_AFTER, Admission
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.bridge.publishing.results import Published, PublishRefused
from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.raw_pipeline import RawPipeline
from flybridge.bridge.store.streams import BRIDGE_GROUP, Entry, Keys
from tests.bridge.stand_ins import Leadership, Room, publisher_of
from tests.waiting import eventually

TERM = 7


def entry(event_id: str, event_type: str = "im.message.receive_v1", term: int = TERM) -> Entry:
    return Entry(
        event_id=event_id, event_type=event_type, app_id="cli_test", tenant_key="t", schema="2.0",
        created_at=1, received_at=2, term=term, traceparent="", tracestate="", envelope=b"{}",
    )  # fmt: skip


@pytest.fixture
async def publisher(real_redis: Redis, keys: Keys) -> AsyncIterator[Publisher]:
    await real_redis.hset(keys.lease, "term", TERM)
    publisher = publisher_of(real_redis, keys)
    yield publisher
    await publisher.close()


async def publish(publisher: Publisher, *entries: Entry) -> list[Any]:
    """Submit all in one turn of the loop and wait for every result."""
    results: list[Any] = []
    for one in entries:
        publisher.submit(one, results.append)
    assert await publisher.drain(5.0) == 0
    return results


async def test_an_entry_arrives_whole_in_the_stream_of_its_type(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    (result,) = await publish(publisher, entry("e1"))
    ((entry_id, fields),) = await real_redis.xrange(keys.stream("im.message.receive_v1"))
    assert result == Published(entry_id.decode())
    assert Entry.from_fields(fields) == entry("e1")


async def test_results_come_in_the_order_of_submission_each_with_its_own_entry(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    results = await publish(publisher, *(entry(f"e{number}") for number in range(1300)))
    stored = await real_redis.xrange(keys.stream("im.message.receive_v1"))
    assert [result.entry_id.encode() for result in results] == [row[0] for row in stored]
    assert [row[1][b"event_id"] for row in stored] == [b"e%d" % n for n in range(1300)]


async def test_what_waits_together_travels_together(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    send = RawPipeline.send

    async def counted(pipe: RawPipeline, commands: list[bytes], timeout: float) -> list[Any]:
        batches.append(len(commands))
        return await send(pipe, commands, timeout)

    monkeypatch.setattr(RawPipeline, "send", counted)
    await publish(publisher, *(entry(f"e{number}") for number in range(600)))
    assert batches == [module.BATCH, 600 - module.BATCH]


async def test_the_same_event_again_is_a_duplicate_with_the_first_ones_id(
    publisher: Publisher,
) -> None:
    first, again = await publish(publisher, entry("e1"), entry("e1"))
    assert again == Published(first.entry_id, duplicate=True)


async def test_another_term_is_fenced_and_told_once_a_batch(real_redis: Redis, keys: Keys) -> None:
    leadership = Leadership()
    publisher = publisher_of(real_redis, keys, leadership)
    await real_redis.hset(keys.lease, "term", TERM + 1)
    results = await publish(publisher, entry("e1"), entry("e2"))
    assert results == [PublishRefused("fenced")] * 2
    assert leadership.terms == [TERM + 1]
    assert await real_redis.exists(keys.stream("im.message.receive_v1")) == 0
    await publisher.close()


async def test_who_no_longer_leads_by_its_own_clock_sends_nothing(
    real_redis: Redis, keys: Keys
) -> None:
    await real_redis.hset(keys.lease, "term", TERM)
    leadership = Leadership()
    leadership.is_mine = False
    publisher = publisher_of(real_redis, keys, leadership)
    assert await publish(publisher, entry("e1")) == [PublishRefused("fenced")]
    assert await real_redis.keys("*") == [keys.lease.encode()]
    await publisher.close()


async def test_a_type_that_is_no_key_goes_to_the_other_stream(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    await publish(publisher, entry("e1", "not a key: {x}"))
    assert await real_redis.xlen(keys.stream("other")) == 1
    assert await real_redis.smembers(keys.types) == {b"other"}


async def test_a_dead_letter_of_the_bridge_keeps_reason_size_and_bounded_texts(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    results: list[Any] = []
    given = {"error": "not JSON", "headers": "x" * 100_000}
    publisher.bury("decode", b"\xff" * 100_000, given, results.append)
    await publisher.drain(2.0)
    ((entry_id, fields),) = await real_redis.xrange(keys.dead(BRIDGE_GROUP))
    assert results == [Published(entry_id.decode())]
    assert (fields[b"reason"], fields[b"error"]) == (b"decode", b"not JSON")
    assert fields[b"size"] == b"100000"
    assert fields[b"headers"] == b"x" * module.DEAD_FIELD
    assert fields[b"envelope"] == b"\xff" * 100_000


async def test_a_dead_letter_of_what_is_never_acked_keeps_the_beginning(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    publisher.bury("invalid", b"\xff" * 100, {}, lambda result: None, longest=10)
    await publisher.drain(2.0)
    ((_, fields),) = await real_redis.xrange(keys.dead(BRIDGE_GROUP))
    assert (fields[b"size"], fields[b"envelope"]) == (b"100", b"\xff" * 10)


async def bury(publisher: Publisher, *payloads: bytes, same: bool = True) -> list[Any]:
    results: list[Any] = []
    for payload in payloads:
        name = payload.hex() if same else ""
        publisher.bury("decode", payload, {}, results.append, identity=name)
        assert await publisher.drain(2.0) == 0
    return results


async def test_a_push_that_comes_again_is_one_dead_letter_as_long_as_that_is_there(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    first, second = await bury(publisher, b"a", b"a")
    assert second == Published(first.entry_id, duplicate=True)
    await real_redis.xdel(keys.dead(BRIDGE_GROUP), first.entry_id)
    (third,) = await bury(publisher, b"a")
    assert not third.duplicate
    assert await real_redis.xlen(keys.dead(BRIDGE_GROUP)) == 1


async def test_what_is_never_acked_leaves_half_of_the_room_to_what_is(
    real_redis: Redis, keys: Keys
) -> None:
    publisher = publisher_of(real_redis, keys, dead_letters=4)
    results: list[Any] = []
    for _ in range(3):
        publisher.bury("invalid", b"x", {}, results.append, longest=10)
        await publisher.drain(2.0)
    assert results[-1] == PublishRefused("letters_full")
    assert all(isinstance(result, Published) for result in await bury(publisher, b"a", b"b"))
    await publisher.close()


async def test_frames_that_nothing_tells_apart_are_a_letter_each(
    publisher: Publisher, real_redis: Redis, keys: Keys
) -> None:
    await bury(publisher, b"a", b"a", same=False)
    assert await real_redis.xlen(keys.dead(BRIDGE_GROUP)) == 2


async def test_beyond_its_bound_no_letter_is_dropped_and_none_taken_until_there_is_room(
    real_redis: Redis, keys: Keys
) -> None:
    now = [0.0]
    publisher = publisher_of(real_redis, keys, dead_letters=2, clock=lambda: now[0], budget=9.0)
    with capture_logs() as logs:
        kept = await bury(publisher, b"a", b"b")
        refused = await bury(publisher, b"c", b"d", b"a")
        assert refused == [
            PublishRefused("letters_full"),
            PublishRefused("letters_full"),
            Published(kept[0].entry_id, duplicate=True),
        ]
        await real_redis.xdel(keys.dead(BRIDGE_GROUP), kept[0].entry_id)
        (again,) = await bury(publisher, b"c")
        assert [line["event"] for line in logs] == ["letters.full"]
        await real_redis.xdel(keys.dead(BRIDGE_GROUP), kept[1].entry_id)
        now[0] = module.CALM_AFTER
        await bury(publisher, b"d")
    await publisher.close()
    assert isinstance(again, Published)
    letters = await real_redis.xrange(keys.dead(BRIDGE_GROUP))
    assert [fields[b"envelope"] for _, fields in letters] == [b"c", b"d"]
    assert [line["event"] for line in logs] == ["letters.full", "letters.relieved"]
    assert "flybridge dlq list --group bridge" in logs[0]["cure"]


async def test_a_server_that_forgot_its_scripts_is_taught_again(
    publisher: Publisher, real_redis: Redis
) -> None:
    await publish(publisher, entry("e1"))
    await real_redis.script_flush()
    (result,) = await publish(publisher, entry("e2"))
    assert isinstance(result, Published)


async def test_one_callback_that_fails_costs_no_other_its_result(publisher: Publisher) -> None:
    results: list[Any] = []

    def broken(result: object) -> None:
        raise ZeroDivisionError

    publisher.submit(entry("e1"), broken)
    publisher.submit(entry("e2"), results.append)
    assert await publisher.drain(2.0) == 0
    assert len(results) == 1


async def test_what_waits_is_bounded_and_the_rest_is_refused_at_once(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 3_000)
    results: list[Any] = []
    for number in range(20):
        publisher.submit(entry(f"e{number}"), results.append)
    refused = len(results)
    assert results == [PublishRefused("overload")] * refused
    assert refused + publisher.waiting == 20
    assert refused > 0 < publisher.waiting
    await publisher.drain(2.0)
    (later,) = await publish(publisher, entry("e20"))
    assert isinstance(later, Published)


async def test_whose_time_is_over_is_refused_without_being_sent(
    real_redis: Redis, keys: Keys
) -> None:
    now = [0.0]
    await real_redis.hset(keys.lease, "term", TERM)
    publisher = publisher_of(real_redis, keys, clock=lambda: now[0])
    results: list[Any] = []
    publisher.submit(entry("e1"), results.append)
    now[0] = module.BUDGET
    publisher.submit(entry("e2"), results.append)
    await publisher.drain(2.0)
    await publisher.close()
    assert results[0] == PublishRefused("timeout")
    assert isinstance(results[1], Published)
    assert await real_redis.xlen(keys.stream("im.message.receive_v1")) == 1


async def test_while_redis_is_full_nothing_is_sent_and_all_is_refused_at_once(
    real_redis: Redis, keys: Keys
) -> None:
    await real_redis.hset(keys.lease, "term", TERM)
    room = Room()
    room.full = True
    publisher = publisher_of(real_redis, keys, room=room)
    results: list[Any] = []
    publisher.submit(entry("e1"), results.append)
    publisher.bury("decode", b"", {}, results.append)
    assert results == [PublishRefused("full")] * 2
    assert publisher.waiting == 0
    await publisher.close()
    assert await real_redis.keys("*") == [keys.lease.encode()]


class TestTrouble:
    """On a server of its own, which the test kills, stops and starts."""

    @pytest.fixture
    async def redis(self, server: Any, keys: Keys) -> AsyncIterator[Redis]:
        self.process = server()
        client = async_client(server.url)
        await client.hset(keys.lease, "term", TERM)
        yield client
        await client.aclose()

    async def test_a_restart_within_the_budget_is_not_noticed(
        self, redis: Redis, keys: Keys, server: Any
    ) -> None:
        publisher = publisher_of(redis, keys, budget=5.0)
        await publish(publisher, entry("e1"))
        self.process.kill()
        self.process.wait()
        results: list[Any] = []
        publisher.submit(entry("e2"), results.append)
        await asyncio.to_thread(server)
        await publisher.drain(5.0)
        assert [type(result) for result in results] == [Published]
        await publisher.close()

    async def test_a_dead_server_is_refused_when_the_budget_is_spent(
        self, redis: Redis, keys: Keys
    ) -> None:
        publisher = publisher_of(redis, keys, budget=0.3)
        await publish(publisher, entry("e1"))
        self.process.kill()
        self.process.wait()
        assert await publish(publisher, entry("e2")) == [PublishRefused("redis")]
        await publisher.close()

    async def test_a_server_that_hangs_is_refused_too_and_what_it_took_is_a_duplicate_later(
        self, redis: Redis, keys: Keys
    ) -> None:
        publisher = publisher_of(redis, keys, budget=0.3)
        await publish(publisher, entry("e1"))
        self.process.send_signal(signal.SIGSTOP)
        assert await publish(publisher, entry("e2")) == [PublishRefused("timeout")]
        self.process.send_signal(signal.SIGCONT)
        (result,) = await publish(publisher, entry("e2"))
        assert isinstance(result, Published)
        assert await redis.xlen(keys.stream("im.message.receive_v1")) == 2
        await publisher.close()

    async def test_a_full_server_refuses_at_once_and_says_so_once_a_batch(
        self, redis: Redis, keys: Keys
    ) -> None:
        room = Room()
        publisher = publisher_of(redis, keys, room=room)
        await redis.config_set("maxmemory", 1)
        async with asyncio.timeout(module.BUDGET / 2):
            refused = await publish(publisher, entry("e1"), entry("e2"))
        assert refused == [PublishRefused("full")] * 2
        assert room.refusals == 1
        await redis.config_set("maxmemory", 0)
        (result,) = await publish(publisher, entry("e1"))
        assert isinstance(result, Published)
        await publisher.close()

    async def test_closing_refuses_what_waits(self, redis: Redis, keys: Keys) -> None:
        publisher = publisher_of(redis, keys)
        self.process.send_signal(signal.SIGSTOP)
        results: list[Any] = []
        publisher.submit(entry("e1"), results.append)
        await publisher.drain(0.05)
        publisher.submit(entry("e2"), results.append)
        await publisher.close()
        assert results == [PublishRefused("redis")] * 2
        self.process.send_signal(signal.SIGCONT)


async def test_no_more_may_wait_than_the_capacity_and_the_shortage_is_logged_from_end_to_end(
    real_redis: Redis, keys: Keys
) -> None:
    now = [0.0]
    await real_redis.hset(keys.lease, "term", TERM)
    publisher = publisher_of(real_redis, keys, admission=Admission(3), clock=lambda: now[0])
    results: list[Any] = []
    with capture_logs() as logs:
        for _ in range(2):
            for number in range(5):
                publisher.submit(entry(f"e{number}"), results.append)
            publisher.bury("decode", b"", {}, results.append)
            assert results == [PublishRefused("capacity")] * 3
            assert publisher.waiting == 3
            await publisher.drain(2.0)
            results.clear()
        now[0] = CALM_AFTER
        (later,) = await publish(publisher, entry("later"))
        now[0] = 2 * CALM_AFTER
        await publish(publisher, entry("later still"))
    await publisher.close()
    assert isinstance(later, Published)
    said = [(line["event"], line.get("refused")) for line in logs]
    assert said == [("queue.filled", None), ("queue.relieved", 6)]


async def test_without_a_queue_nothing_waits_for_what_is_on_its_way(
    real_redis: Redis, keys: Keys
) -> None:
    await real_redis.hset(keys.lease, "term", TERM)
    publisher = publisher_of(real_redis, keys, admission=Admission(queue=False))
    together: list[Any] = []
    meanwhile: list[Any] = []
    for number in range(3):
        publisher.submit(entry(f"e{number}"), together.append)
    await asyncio.sleep(0)  # they are on their way now
    publisher.submit(entry("e3"), meanwhile.append)
    assert meanwhile == [PublishRefused("capacity")]
    await eventually(lambda: len(together) == 3)
    assert all(isinstance(result, Published) for result in together)
    (later,) = await publish(publisher, entry("e3"))
    await publisher.close()
    assert later == Published(later.entry_id), "what was refused is not there yet"
