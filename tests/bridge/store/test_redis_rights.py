"""A right that is taken from the bridge's Redis user after the start: told once, with its cure."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError
from structlog.testing import capture_logs

from flybridge.bridge.housekeeping.trimming import Trimmer
from flybridge.bridge.leadership.lease import LeaseElector
from flybridge.bridge.ops.http import unready
from flybridge.bridge.ops.status import Board
from flybridge.bridge.publishing import outage
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.bridge.publishing.results import Published, PublishRefused
from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.redis_rights import cure, is_denied, rights_of
from flybridge.bridge.store.streams import Keys
from tests.bridge.ops.test_http import status
from tests.bridge.publishing.test_publisher import entry
from tests.bridge.stand_ins import Candidate, Leadership, publisher_of
from tests.waiting import eventually

IM = "im.message.receive_v1"
TERM = 7
BUDGET = 0.2


@pytest.mark.parametrize(
    ("said", "script", "rights"),
    [
        ("NOPERM User b has no permissions to run the 'xadd' command", "", "+xadd"),
        ("NOPERM this user has no permissions to run the 'xinfo|groups' command", "", "+xinfo|"),
        ("ACL failure in script: User b has no permissions to run the 'get' command", "", "+get"),
        (
            "The user executing the script can't run this command or subcommand",
            "redis.call('XINFO', 'GROUPS', KEYS[1]) redis.pcall('GET', 'k')",
            "+get +xinfo|groups",
        ),
        ("NOPERM No permissions to access a key", "", "~flybridge:{"),
        ("ACL failure in script: No permissions to access a key", "", "~flybridge:{"),
    ],
)
def test_a_refusal_is_cured_by_the_right_that_is_missing(
    said: str, script: str, rights: str
) -> None:
    assert is_denied(ResponseError(said))
    assert f"ACL SETUSER <user> {rights}" in cure(ResponseError(said), script)


@pytest.mark.parametrize("said", ["WRONGTYPE Operation", "BUSY", "READONLY You can't write"])
def test_other_errors_are_no_refusal(said: str) -> None:
    assert not is_denied(ResponseError(said))
    assert is_denied(NoPermissionError("whatever it says"))


def test_an_option_is_no_subcommand() -> None:
    assert rights_of("redis.call('XTRIM', KEYS[1], 'MINID')") == ["xtrim"]


@pytest.fixture(params=["redis", "valkey"])
async def admin(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with async_client(request.getfixturevalue(f"{request.param}_url")) as client:
        await client.flushall()
        await client.acl_setuser(
            "bridge", enabled=True, passwords=["+pw"], keys="*", commands=["+@all"]
        )
        yield client
        await client.acl_deluser("bridge")


@pytest.fixture
async def redis(admin: Redis) -> AsyncIterator[Redis]:
    """As the user `bridge`."""
    settings = admin.connection_pool.connection_kwargs
    url = f"redis://bridge:pw@{settings['host']}:{settings['port']}/0"
    async with async_client(url) as client:
        yield client


async def give(admin: Redis, right: str) -> None:
    await admin.acl_setuser("bridge", enabled=True, commands=[right])


def told(logs: list[Any], event: str, right: str) -> dict[str, Any]:
    """The one line of this event; it ends with the right that is missing."""
    (line,) = [line for line in logs if line["event"] == event]
    assert f"+{right}" in str(line.get("cure") or line.get("hint")).split(";")[0]
    return dict(line)


@pytest.mark.parametrize(
    "right",
    ["evalsha", "smembers", "time", "xinfo|groups", "xpending", "xrange", "xlen", "xtrim",
     "zscore", "hdel", "exists"],
)  # fmt: skip
async def test_trimming(admin: Redis, redis: Redis, keys: Keys, right: str) -> None:
    """Also of what it can do without, which then says less than it could."""
    stream, old = keys.stream(IM), int(time.time() * 1000) - 3_600_000
    for name in (IM, "contact.user.created_v3"):
        await admin.sadd(keys.types, name)
        await admin.sadd(keys.subscriptions, "workers|*", "audit|*")
        for number in range(3):
            await admin.xadd(keys.stream(name), {"event_id": "e"}, id=f"{old}-{number + 1}")
        await admin.xgroup_create(keys.stream(name), "workers", "0")
        await admin.xreadgroup("workers", "w", {keys.stream(name): ">"}, 2)
    trimmer = Trimmer(redis, keys, 4000.0)
    await trimmer._attempt(4000.0)
    assert trimmer.trouble == ""
    await give(admin, f"-{right}")

    with capture_logs() as logs:
        await trimmer._attempt(4000.0)
        await trimmer._attempt(4000.0)
    told(logs, "trim.failed", right)
    assert f"+{right}" in trimmer.trouble

    await give(admin, f"+{right}")
    with capture_logs() as logs:
        await trimmer._attempt(4000.0)
    assert [line["event"] for line in logs if "trim" in line["event"]] == ["trim.recovered"]
    assert trimmer.trouble == ""
    assert await admin.xlen(stream) == 3


async def test_a_stream_that_is_none_hides_no_right_that_is_missing(
    admin: Redis, redis: Redis, keys: Keys
) -> None:
    await admin.sadd(keys.types, "a.spoilt", IM)
    await admin.set(keys.stream("a.spoilt"), "by hand")
    await admin.xadd(keys.stream(IM), {"event_id": "e"})
    trimmer = Trimmer(redis, keys, 4000.0)
    with capture_logs() as logs:
        await trimmer._attempt(4000.0)
        await give(admin, "-xtrim")
        await trimmer._attempt(4000.0)
    spoilt, denied = [line for line in logs if line["event"] == "trim.failed"]
    assert keys.stream("a.spoilt") in spoilt["error"]
    assert spoilt["cure"].startswith("delete the key")
    assert "+xtrim" in denied["cure"]


@pytest.fixture
async def publisher(
    admin: Redis, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Publisher]:
    monkeypatch.setattr(outage, "TRIAL_PERIOD", 0.05)
    await admin.hset(keys.lease, "term", TERM)
    publisher = publisher_of(redis, keys, budget=BUDGET)
    yield publisher
    await publisher.close()


async def publish(publisher: Publisher, event_id: str, event_type: str = IM) -> Any:
    results: list[Any] = []
    publisher.submit(entry(event_id, event_type), results.append)
    assert await publisher.drain(5.0) == 0
    return results[0]


def readiness(publisher: Publisher) -> list[str]:
    return unready(status(publish_trouble=publisher.trouble), 15.0, 60.0)


@pytest.mark.parametrize("right", ["evalsha", "hget", "get", "sismember", "scard", "sadd", "xadd"])
async def test_publishing(admin: Redis, publisher: Publisher, keys: Keys, right: str) -> None:
    """A leader that cannot is not ready, and is again though no other event comes."""
    await publish(publisher, "e1", "contact.user.created_v3")
    assert readiness(publisher) == []
    await give(admin, f"-{right}")

    with capture_logs() as logs:
        assert await publish(publisher, "e2") == PublishRefused("redis")
        assert await publish(publisher, "e3") == PublishRefused("redis")
    told(logs, "publish.failed", right)
    (problem,) = readiness(publisher)
    assert f"+{right}" in problem
    assert not await admin.exists(keys.stream(IM))

    with capture_logs() as logs:
        await give(admin, f"+{right}")
        await eventually(lambda: not readiness(publisher))
    assert [line["event"] for line in logs] == ["publish.recovered"]
    assert (await publish(publisher, "e2")).duplicate, "it was taken by the trial"
    assert isinstance(await publish(publisher, "e3"), Published)


async def test_who_takes_some_entries_and_refuses_others_is_not_well(
    admin: Redis, publisher: Publisher
) -> None:
    await publish(publisher, "e1", "contact.user.created_v3")
    await give(admin, "-sadd")
    with capture_logs() as logs:
        for number in range(3):
            await publish(publisher, f"new-{number}")
            assert isinstance(
                await publish(publisher, f"old-{number}", "contact.user.created_v3"), Published
            )
            assert readiness(publisher)
    assert [line["event"] for line in logs] == ["publish.failed"]
    await give(admin, "+sadd")
    await eventually(lambda: not readiness(publisher))


async def test_an_event_without_a_marker_is_published_once_and_that_is_told(
    admin: Redis, publisher: Publisher, keys: Keys
) -> None:
    await give(admin, "-set")
    with capture_logs() as logs:
        assert isinstance(await publish(publisher, "e1"), Published)
        assert isinstance(await publish(publisher, "e2"), Published)
    told(logs, "publish.unmarked", "set")
    assert await admin.xlen(keys.stream(IM)) == 2


async def test_an_outage_ends_with_the_leadership(
    admin: Redis, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "TRIAL_PERIOD", 0.05)
    leadership = Leadership()
    await admin.hset(keys.lease, "term", TERM)
    publisher = publisher_of(redis, keys, leadership, budget=BUDGET)
    await give(admin, "-xadd")
    await publish(publisher, "e1")
    assert publisher.trouble
    leadership.is_mine = False
    await eventually(lambda: not publisher.trouble)
    await publisher.close()


@pytest.mark.parametrize("right", ["time", "hset", "hgetall"])
async def test_the_board(admin: Redis, redis: Redis, keys: Keys, right: str) -> None:
    board = Board(redis, keys)
    await give(admin, f"-{right}")
    with capture_logs() as logs:
        await board._attempt(board._write(status))
        await board._attempt(board._write(status))
    told(logs, "redis.denied", right)


@pytest.mark.parametrize("right", ["evalsha", "time", "hmget", "hset"])
async def test_the_lease(admin: Redis, redis: Redis, keys: Keys, right: str) -> None:
    elector = LeaseElector(redis, keys, "one", Candidate())
    await give(admin, f"-{right}")
    with capture_logs() as logs:
        await elector._ask()
        await elector._ask()
    told(logs, "redis.denied", right)
    assert elector.failures == 2
