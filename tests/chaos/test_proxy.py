"""The cut-proxy itself, in front of a real Redis: what it promises is what the chaos rests on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    ExecAbortError,
    OutOfMemoryError,
    TimeoutError,
)

from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.chaos.proxy import CutProxy


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def proxy(server: EmbeddedRedis) -> AsyncIterator[CutProxy]:
    async with CutProxy("127.0.0.1", server.port) as proxy:
        yield proxy


def client_of(port: int) -> Redis:
    return Redis(
        host="127.0.0.1", port=port, protocol=2, socket_timeout=1, retry=Retry(NoBackoff(), 0)
    )


@pytest.fixture
async def client(proxy: CutProxy) -> AsyncIterator[Redis]:
    async with client_of(proxy.port) as client:
        yield client


@pytest.fixture
async def direct(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    async with client_of(server.port) as client:
        await client.flushall()
        yield client


async def seen(proxy: CutProxy, name: str) -> None:
    async with asyncio.timeout(5):
        while not proxy.commands[name]:  # noqa: ASYNC110  # a counter wakes nobody
            await asyncio.sleep(0)


async def test_a_lost_reply_is_that_of_a_command_carried_out(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    proxy.drop_reply("INCRBY")
    with pytest.raises(ConnectionError):
        await client.incr("k")
    assert await direct.get("k") == b"1"
    assert await client.incr("k") == 2
    assert proxy.dropped == {"INCRBY": 1}
    assert proxy.commands["INCRBY"] == 2
    assert not proxy.armed


async def test_a_lost_command_is_not_carried_out(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    proxy.drop_command("INCRBY", times=2)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await client.incr("k")
    assert await direct.get("k") is None


async def test_a_reply_is_lost_in_the_middle_of_a_pipeline(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    proxy.drop_reply(lambda command: command[:2] == [b"INCRBY", b"b"])
    async with client.pipeline(transaction=False) as pipeline:
        for key in "abc":
            pipeline.incr(key)
        with pytest.raises(ConnectionError):
            await pipeline.execute()
    assert await direct.mget("a", "b") == [b"1", b"1"]


async def test_a_reply_lost_in_a_transaction_leaves_it_carried_out(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    proxy.drop_reply("INCRBY")
    async with client.pipeline(transaction=True) as pipeline:
        with pytest.raises(ConnectionError):
            await pipeline.set("a", 1).incr("a").execute()
    assert await direct.get("a") == b"2"


async def test_a_blocking_read_whose_reply_is_lost_has_taken_its_entry(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    await direct.xgroup_create("s", "g", mkstream=True)
    proxy.drop_reply("XREADGROUP")
    reading = asyncio.create_task(client.xreadgroup("g", "c", {"s": ">"}, block=900))
    await seen(proxy, "XREADGROUP")
    await direct.xadd("s", {"a": "b"})
    with pytest.raises(ConnectionError):
        await reading
    assert (await direct.xpending("s", "g"))["pending"] == 1


async def test_errors_are_answered_until_they_end(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    proxy.answer(b"-LOADING Redis is loading the dataset in memory")
    with pytest.raises(BusyLoadingError):
        await client.set("k", 1)
    proxy.answer(None)
    proxy.answer(b"-OOM command not allowed", "SET")
    with pytest.raises(OutOfMemoryError):
        await client.set("k", 1)
    assert await client.get("k") is None
    proxy.answer(None)
    assert await client.set("k", 1)
    assert proxy.answered == {"SET": 2}


async def test_an_error_aborts_a_transaction(proxy: CutProxy, client: Redis, direct: Redis) -> None:
    proxy.answer(b"-OOM command not allowed", "SET")
    async with client.pipeline(transaction=True) as pipeline:
        with pytest.raises((ExecAbortError, OutOfMemoryError)):
            await pipeline.set("k", 1).incr("n").execute()
    assert await direct.exists("k", "n") == 0
    assert await client.incr("n") == 1


async def test_cut_connections_are_reset_and_new_ones_taken(proxy: CutProxy, client: Redis) -> None:
    await client.ping()
    blocked = asyncio.create_task(client.blpop("nothing", timeout=1))
    await seen(proxy, "BLPOP")
    proxy.cut()
    with pytest.raises(ConnectionError):
        await blocked
    assert await client.ping()


async def test_refused_means_refused_and_the_port_stays(proxy: CutProxy, client: Redis) -> None:
    await client.ping()
    proxy.refuse()
    with pytest.raises(ConnectionError):
        await client.ping()
    for _ in range(2):
        with pytest.raises(ConnectionError, match="111"):
            await client.ping()
    proxy.accept()
    assert await client.ping()


async def test_a_black_hole_closes_nothing_and_what_was_sent_arrives_late(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    await client.ping()
    proxy.black_hole()
    since = time.monotonic()
    with pytest.raises(TimeoutError):
        await client.incr("k")
    assert time.monotonic() - since > 0.9
    assert await direct.get("k") is None
    proxy.pass_on()
    assert await client.incr("k") == 2, "the command given up came first"


async def test_a_connection_cut_in_a_black_hole_has_lost_what_it_carried(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    await client.ping()
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        await client.incr("k")
    proxy.cut()
    proxy.pass_on()
    assert await client.incr("k") == 1


async def test_connections_made_in_a_black_hole_hang(proxy: CutProxy, client: Redis) -> None:
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        await client.ping()


async def test_stranded_connections_are_silent_and_new_ones_are_well(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    await client.ping()
    proxy.strand()
    with pytest.raises(TimeoutError):
        await client.incr("k")
    assert await client.incr("k") == 1


async def test_a_delay_goes_both_ways(proxy: CutProxy, client: Redis) -> None:
    await client.ping()
    proxy.delay(0.05)
    since = time.monotonic()
    await client.ping()
    assert 0.1 <= time.monotonic() - since < 0.5


async def test_retargeted_connections_go_to_the_other_server(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    await direct.set("name", "first")
    with EmbeddedRedis() as other:
        async with client_of(other.port) as there:
            await there.set("name", "second")
        assert await client.get("name") == b"first"
        proxy.retarget(other.port)
        with pytest.raises(ConnectionError):
            await client.get("name")
        assert await client.get("name") == b"second"
        proxy.retarget(1)
        with pytest.raises(ConnectionError):
            await client.get("name")


async def test_one_of_several_servers_is_hidden_and_the_others_are_not(
    server: EmbeddedRedis, direct: Redis
) -> None:
    with EmbeddedRedis() as other:
        async with (
            CutProxy("127.0.0.1", server.port, other.port) as proxy,
            client_of(proxy.ports[server.port]) as here,
            client_of(proxy.ports[other.port]) as there,
        ):
            await here.set("name", "first")
            await there.set("name", "second")
            proxy.refuse(other.port)
            assert await here.get("name") == b"first"
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    await there.get("name")
            proxy.accept()
            assert await there.get("name") == b"second"
            # What befalls the actor befalls it before each of them.
            proxy.drop_command("GET", times=2)
            for client in (here, there):
                with pytest.raises(ConnectionError):
                    await client.get("name")
            assert proxy.reached == {server.port: 1, other.port: 2}


async def test_what_is_sent_to_a_subscriber_does_not_count_as_a_reply(
    proxy: CutProxy, client: Redis, direct: Redis
) -> None:
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("a", "b")
        await direct.publish("a", "hi")
        kinds = []
        while len(kinds) < 3:
            found = await pubsub.get_message(timeout=1)
            kinds += [found["type"]] if found else []
        assert kinds == ["subscribe", "subscribe", "message"]
        proxy.drop_reply("UNSUBSCRIBE")
        await pubsub.unsubscribe("a")
        with pytest.raises(ConnectionError):
            await pubsub.get_message(timeout=1)
    assert proxy.dropped == {"UNSUBSCRIBE": 1}


async def test_without_resp_it_carries_anything() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    upstream = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with upstream, CutProxy("127.0.0.1", _port(upstream), resp=False) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        sent = b"\r\n*no resp$" * 100_000
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
