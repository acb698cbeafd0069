"""The watch on a real server whose limit the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from flybridge.bridge.housekeeping.memory import HOLD, RELIEF, Headroom, Memory, MemoryWatch
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.store.client import async_client
from tests.waiting import eventually


class Trimmer:
    """Counts how often it was asked for room."""

    def __init__(self) -> None:
        self.calls = 0

    def relieve(self) -> None:
        self.calls += 1


def watch_on(redis: Any, trimmer: Trimmer | None = None, **options: Any) -> MemoryWatch:
    return MemoryWatch(redis, 0.85, trimmer or Trimmer(), Subscribers(), period=0.005, **options)


@pytest.fixture
async def limited(real_redis: Redis) -> AsyncIterator[Redis]:
    yield real_redis
    await real_redis.config_set("maxmemory", 0)


async def fill(redis: Redis, share: float) -> None:
    """Have what is used be this share of the limit."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / share))


async def test_it_finds_redis_full_and_roomy_again_and_says_each_once(limited: Redis) -> None:
    trimmer = Trimmer()
    watch = watch_on(limited, trimmer)
    headroom = watch.headroom
    with capture_logs() as logs:
        running = asyncio.create_task(watch.run())
        await eventually(lambda: headroom.memory.used > 0)
        assert not headroom.full
        assert trimmer.calls == 0
        await fill(limited, 0.9)
        await eventually(lambda: trimmer.calls > 3)
        assert headroom.full
        await fill(limited, 0.5)
        await eventually(lambda: not headroom.full)
        running.cancel()
    assert [line["event"] for line in logs] == ["redis.full", "redis.relieved"]
    assert 0.85 < logs[0]["used"] / logs[0]["maxmemory"] < 1
    assert "raise maxmemory" in logs[0]["cure"]


async def test_a_refused_write_is_heard_at_once_and_outlived(limited: Redis) -> None:
    ahead = [0.0]
    watch = watch_on(limited, clock=lambda: ahead[0])
    watch.refused()
    assert watch.full
    running = asyncio.create_task(watch.run())
    ahead[0] = HOLD
    await eventually(lambda: not watch.full)
    running.cancel()


async def test_it_outlives_a_redis_that_is_away() -> None:
    client = async_client("redis://127.0.0.1:1/0")
    running = asyncio.create_task(watch_on(client).run())
    done, _ = await asyncio.wait({running}, timeout=0.05)
    assert not done
    running.cancel()
    await client.aclose()


async def test_a_user_who_may_not_ask_is_told_of_it_once(real_redis: Redis, real_url: str) -> None:
    await real_redis.execute_command(
        "ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-info"
    )
    client = async_client(real_url.replace("//", "//blind:secret@"))
    trimmer = Trimmer()
    with capture_logs() as logs:
        watch = watch_on(client, trimmer)
        watch.refused()
        running = asyncio.create_task(watch.run())
        await eventually(lambda: trimmer.calls > 3)
        running.cancel()
    await client.aclose()
    await real_redis.execute_command("ACL", "DELUSER", "blind")
    assert [line["event"] for line in logs] == ["redis.full", "memory.unreadable"]


class WithoutInfo:
    """A managed Redis whose proxy does not know INFO."""

    async def info(self, section: str) -> dict[str, Any]:
        raise ResponseError(f"unknown command 'INFO', with args beginning with: '{section}'")


async def test_a_redis_without_info_is_not_full_for_ever() -> None:
    ahead = [0.0]
    with capture_logs() as logs:
        watch = watch_on(WithoutInfo(), clock=lambda: ahead[0])
        watch.refused()
        running = asyncio.create_task(watch.run())
        ahead[0] = HOLD
        await eventually(lambda: not watch.full)
        running.cancel()
    assert [line["event"] for line in logs] == ["redis.full", "memory.unreadable", "redis.relieved"]


# What full means


LIMIT = 1_000_000


def memory(share: float) -> Memory:
    return Memory(int(share * LIMIT), LIMIT)


def test_from_the_threshold_on_it_is_full() -> None:
    headroom = Headroom(0.85)
    headroom.measured(memory(0.84), 0.0)
    assert not headroom.full
    headroom.measured(memory(0.85), 1.0)
    assert headroom.full
    assert headroom.memory == memory(0.85)


def test_it_stays_full_until_it_is_clearly_below() -> None:
    headroom = Headroom(0.85)
    headroom.measured(memory(0.85), 0.0)
    headroom.measured(memory(0.84), 1.0)
    assert headroom.full
    headroom.measured(memory(0.85 * RELIEF - 0.01), 2.0)
    assert not headroom.full
    headroom.measured(memory(0.84), 3.0)
    assert not headroom.full


def test_without_a_limit_it_is_never_full() -> None:
    headroom = Headroom(0.85)
    headroom.measured(Memory(10**12, 0), 0.0)
    assert not headroom.full


def test_a_refused_write_counts_at_once_and_for_a_while_whatever_is_measured() -> None:
    headroom = Headroom(0.85)
    headroom.refused(10.0)
    assert headroom.full
    headroom.measured(Memory(0, 0), 10.0 + HOLD - 0.1)
    assert headroom.full
    headroom.measured(Memory(0, 0), 10.0 + HOLD)
    assert not headroom.full


def test_a_refused_write_is_no_news_to_a_full_one_that_stays_so() -> None:
    headroom = Headroom(0.85)
    headroom.refused(0.0)
    headroom.measured(memory(0.99), HOLD + 1.0)
    assert headroom.full
