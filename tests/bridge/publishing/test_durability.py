"""What an ack waits for: read, judged, and tried on servers that can and cannot do it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError
from structlog.testing import capture_logs

from flybridge.bridge.errors import RedisUnfit, RedisUnreachable
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.publishing import publish_connection
from flybridge.bridge.publishing.durability import NONE, Durability, Undurable, fit
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.bridge.publishing.results import Published, PublishRefused
from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.streams import BRIDGE_GROUP, Entry, Keys
from tests.bridge.stand_ins import publisher_of
from tests.waiting import eventually

TERM = 7
AOF, ONE_REPLICA = Durability.parse("aof"), Durability.parse("replica:1")
ON_DISK = {"appendonly": "yes", "appendfsync": "always"}


def entry(event_id: str) -> Entry:
    return Entry(
        event_id=event_id, event_type="im.x", app_id="cli_test", tenant_key="t", schema="2.0",
        created_at=1, received_at=2, term=TERM, traceparent="", tracestate="", envelope=b"{}",
    )  # fmt: skip


class TestProfile:
    def test_each_has_its_command_with_a_timeout_in_milliseconds(self) -> None:
        assert NONE.command == ()
        assert AOF.wait(1.5).split(b"\r\n")[2::2] == [b"WAITAOF", b"1", b"0", b"1500"]
        three = Durability.parse("replica:3")
        assert three.wait(0.25).split(b"\r\n")[2::2] == [b"WAIT", b"3", b"250"]

    def test_no_time_left_is_not_for_ever(self) -> None:
        assert ONE_REPLICA.wait(0.0).split(b"\r\n")[-2] == b"1"

    @pytest.mark.parametrize("text", ["", "AOF", "replica", "replica:0", "replica:x", "aof "])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="give none, aof or replica:N"):
            Durability.parse(text)

    @pytest.mark.parametrize(("profile", "answer"), [("aof", [1, 0]), ("replica:2", 2)])
    def test_enough_copies_are_durable(self, profile: str, answer: Any) -> None:
        assert Durability.parse(profile).judge(answer) is None

    @pytest.mark.parametrize(
        ("profile", "answer"),
        [("aof", [0, 5]), ("replica:2", 1), ("aof", ResponseError("appendonly is disabled"))],
    )
    def test_fewer_are_not(self, profile: str, answer: Any) -> None:
        assert isinstance(Durability.parse(profile).judge(answer), Undurable)

    def test_a_broken_connection_stays_one(self) -> None:
        broken = ConnectionError("gone")
        assert ONE_REPLICA.judge(broken) is broken


@pytest.fixture(params=["redis", "valkey"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """The Redis of this machine and a Valkey, as they are by default."""
    client = async_client(request.getfixturevalue(f"{request.param}_url"))
    yield client
    await client.config_set("appendfsync", "everysec")
    await client.config_set("appendonly", "yes")
    await client.config_set("no-appendfsync-on-rewrite", "no")
    await client.aclose()


class TestFit:
    async def test_every_server_can_do_none(self, either: Redis) -> None:
        assert await fit(NONE, either) is NONE

    @pytest.mark.parametrize(
        ("name", "value", "cure"),
        [
            ("appendfsync", "everysec", "appendfsync always"),
            ("appendonly", "no", "appendonly yes"),
            ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite no"),
        ],
    )
    async def test_aof_is_refused_where_replies_come_before_the_fsync(
        self, either: Redis, name: str, value: str, cure: str
    ) -> None:
        await either.config_set("appendfsync", "always")
        await either.config_set(name, value)
        with pytest.raises(RedisUnfit, match=rf"set it: CONFIG SET {cure}, and in its"):
            await fit(AOF, either)

    async def test_who_may_not_wait_for_replicas_is_refused_at_the_start(
        self, either: Redis
    ) -> None:
        await either.execute_command(
            "ACL", "SETUSER", "hasty", "on", ">secret", "~*", "+@all", "-wait"
        )
        settings = either.connection_pool.connection_kwargs
        client = async_client(f"redis://hasty:secret@127.0.0.1:{settings['port']}/0")
        with pytest.raises(RedisUnfit, match=r"ACL SETUSER <user> \+wait\."):
            await fit(ONE_REPLICA, client)
        await either.execute_command("ACL", "DELUSER", "hasty")
        await client.aclose()

    async def test_aof_is_asked_after_where_that_is_possible(self, either: Redis) -> None:
        asked = ("COMMAND LIST", "FILTERBY", "PATTERN", "waitaof")
        known = await either.execute_command(*asked)
        await either.config_set("appendfsync", "always")
        fitted = await fit(AOF, either)
        await either.config_set("appendfsync", "everysec")
        assert (fitted.profile, fitted.command) == ("aof", AOF.command if known else ())

    async def test_who_may_not_see_the_configuration_is_warned(self, valkey_url: str) -> None:
        admin = async_client(valkey_url)
        await admin.execute_command(
            "ACL", "SETUSER", "guest", "on", ">secret", "~*", "+@all", "-config"
        )
        client = async_client(valkey_url.replace("//", "//guest:secret@"))
        with capture_logs() as logs:
            assert await fit(AOF, client) is AOF
        await admin.execute_command("ACL", "DELUSER", "guest")
        await admin.aclose()
        await client.aclose()
        assert [line["event"] for line in logs] == ["durability.unchecked"]
        assert "appendfsync is always" in logs[0]["cure"]

    async def test_missing_replicas_are_told_and_waited_for(self, either: Redis) -> None:
        with capture_logs() as logs:
            assert await fit(ONE_REPLICA, either) is ONE_REPLICA
        assert [(line["event"], line["replicas"], line["wanted"]) for line in logs] == [
            ("durability.short", 0, 1)
        ]

    async def test_a_redis_that_is_away_is_a_sentence(self) -> None:
        client = async_client("redis://127.0.0.1:1/0")
        with pytest.raises(RedisUnreachable, match="check that it is well"):
            await fit(ONE_REPLICA, client)
        await client.aclose()


class TestReplica:
    """A primary and a replica that the test stops and continues."""

    @pytest.fixture
    def servers(self) -> Iterator[tuple[EmbeddedRedis, EmbeddedRedis]]:
        with EmbeddedRedis() as primary, EmbeddedRedis() as replica:
            yield primary, replica

    @pytest.fixture
    async def redis(
        self, servers: tuple[EmbeddedRedis, EmbeddedRedis], keys: Keys
    ) -> AsyncIterator[Redis]:
        primary, replica = servers
        self.replica = replica
        client, follower = async_client(primary.url), async_client(replica.url)
        await client.config_set("repl-diskless-sync-delay", 0)
        await client.hset(keys.lease, "term", TERM)
        await follower.replicaof("127.0.0.1", primary.port)

        async def linked() -> bool:
            return (await follower.info("replication"))["master_link_status"] == "up"

        await eventually(linked, within=10.0)
        yield client
        os.kill(replica.pid, signal.SIGCONT)
        await client.aclose()
        await follower.aclose()

    async def publish(self, publisher: Publisher, *event_ids: str) -> list[Any]:
        results: list[Any] = []
        for event_id in event_ids:
            publisher.submit(entry(event_id), results.append)
        assert await publisher.drain(5.0) == 0
        return results

    async def test_only_what_the_replica_has_is_published_also_when_it_comes_again(
        self, redis: Redis, keys: Keys
    ) -> None:
        publisher = publisher_of(redis, keys, durability=ONE_REPLICA, budget=0.4)
        assert isinstance((await self.publish(publisher, "e1"))[0], Published)

        os.kill(self.replica.pid, signal.SIGSTOP)
        assert await self.publish(publisher, "e2") == [PublishRefused("undurable")]
        assert await redis.xlen(keys.stream("im.x")) == 2
        # In Redis already, but nowhere else: a duplicate is no more durable than the first.
        assert await self.publish(publisher, "e2") == [PublishRefused("undurable")]
        # Over a connection that has written nothing yet.
        other = publisher_of(redis, keys, durability=ONE_REPLICA, budget=0.4)
        assert await self.publish(other, "e2") == [PublishRefused("undurable")]

        os.kill(self.replica.pid, signal.SIGCONT)
        (again,) = await self.publish(publisher, "e2")
        assert isinstance(again, Published)
        assert again.duplicate
        assert await redis.xlen(keys.stream("im.x")) == 2
        for each in (publisher, other):
            await each.close()

    async def test_a_dead_letter_has_to_be_durable_too(self, redis: Redis, keys: Keys) -> None:
        publisher = publisher_of(redis, keys, durability=ONE_REPLICA, budget=0.3)
        os.kill(self.replica.pid, signal.SIGSTOP)
        results: list[Any] = []
        publisher.bury("decode", b"\xff", {}, results.append)
        await publisher.drain(2.0)
        await publisher.close()
        assert results == [PublishRefused("undurable")]
        assert await redis.xlen(keys.dead(BRIDGE_GROUP)) == 1

    async def test_who_comes_while_others_wait_is_not_kept_from_redis(
        self, redis: Redis, keys: Keys
    ) -> None:
        publisher = publisher_of(redis, keys, durability=ONE_REPLICA, budget=1.0)
        os.kill(self.replica.pid, signal.SIGSTOP)
        results: list[tuple[float, object]] = []
        began = time.monotonic()

        def done(result: object) -> None:
            results.append((time.monotonic() - began, result))

        publisher.submit(entry("e1"), done)
        await publisher.drain(0.3)
        publisher.submit(entry("e2"), done)

        async def both_in_redis() -> bool:
            return await redis.xlen(keys.stream("im.x")) == 2

        await eventually(both_in_redis, within=0.5)
        assert results == []
        os.kill(self.replica.pid, signal.SIGCONT)
        await publisher.drain(2.0)
        await publisher.close()
        assert [type(result) for _, result in results] == [Published, Published]
        assert max(seconds for seconds, _ in results) < 1.0


class Router:
    """Carries bytes to a server; forgets connections without a word, as a NAT does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._known: set[asyncio.StreamWriter] = set()

    def forget(self) -> None:
        """Let nothing more through on the connections there are."""
        self._known.clear()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, server = await asyncio.open_connection("127.0.0.1", self._port)
        self._known.add(writer)
        with closing(writer), closing(server):
            back = asyncio.create_task(self._carry(writer, upstream, writer))
            await self._carry(writer, reader, server)
            back.cancel()

    async def _carry(
        self, name: asyncio.StreamWriter, source: asyncio.StreamReader, to: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65_536):
            if name in self._known:
                to.write(data)


async def test_a_connection_that_does_not_answer_leaves_time_for_another(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_connection, "REPLY_TIMEOUT", 0.1)
    await real_redis.hset(keys.lease, "term", TERM)
    router = Router(real_redis.connection_pool.connection_kwargs["port"])
    async with await asyncio.start_server(router, "127.0.0.1", 0) as server:
        client = async_client(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        results: list[Any] = []
        publisher = publisher_of(
            client, keys, durability=replace(ONE_REPLICA, wanted=0), budget=0.5
        )
        for event_id in ("e1", "e2"):
            publisher.submit(entry(event_id), results.append)
            assert await publisher.drain(2.0) == 0
            router.forget()
        await publisher.close()
        await client.aclose()
    assert [type(result) for result in results] == [Published, Published]
