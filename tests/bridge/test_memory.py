"""The watch on a real server whose limit the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from bridge import memory
from bridge.headroom import HOLD, Headroom
from bridge.memory import MemoryWatch
from bridge.redis_client import async_client

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PERIOD", 0.005)


@pytest.fixture
async def limited(real_redis: Redis) -> AsyncIterator[Redis]:
    yield real_redis
    await real_redis.config_set("maxmemory", 0)


async def fill(redis: Redis, share: float) -> None:
    """Have what is used be this share of the limit."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / share))


async def test_it_finds_redis_full_and_roomy_again_and_says_each_once(
    limited: Redis, eventually: Eventually
) -> None:
    told: list[str] = []
    headroom = Headroom(0.85)
    watch = MemoryWatch(limited, headroom, on_full=lambda: told.append("full"))
    with capture_logs() as logs:
        running = asyncio.create_task(watch.run())
        await eventually(lambda: headroom.memory.used > 0)
        assert not headroom.full
        assert told == []
        await fill(limited, 0.9)
        await eventually(lambda: len(told) > 3)
        assert headroom.full
        await fill(limited, 0.5)
        await eventually(lambda: not headroom.full)
        running.cancel()
    assert [line["event"] for line in logs] == ["redis.full", "redis.relieved"]
    assert 0.85 < logs[0]["used"] / logs[0]["maxmemory"] < 1
    assert "raise maxmemory" in logs[0]["cure"]


async def test_a_refused_write_is_heard_at_once_and_outlived(
    limited: Redis, eventually: Eventually
) -> None:
    ahead = [0.0]
    headroom = Headroom(0.85)
    watch = MemoryWatch(limited, headroom, clock=lambda: ahead[0])
    watch.refused()
    assert headroom.full
    running = asyncio.create_task(watch.run())
    ahead[0] = HOLD
    await eventually(lambda: not headroom.full)
    running.cancel()


async def test_it_outlives_a_redis_that_is_away(eventually: Eventually) -> None:
    client = async_client("redis://127.0.0.1:1/0")
    running = asyncio.create_task(MemoryWatch(client, Headroom(0.85)).run())
    done, _ = await asyncio.wait({running}, timeout=0.05)
    assert not done
    running.cancel()
    await client.aclose()


async def test_a_user_who_may_not_ask_is_told_of_it_once(
    real_redis: Redis, real_url: str, eventually: Eventually
) -> None:
    await real_redis.execute_command(
        "ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-info"
    )
    client = async_client(real_url.replace("//", "//blind:secret@"))
    headroom = Headroom(0.85)
    looks: list[Any] = []
    with capture_logs() as logs:
        watch = MemoryWatch(client, headroom, on_full=lambda: looks.append(1))
        watch.refused()
        running = asyncio.create_task(watch.run())
        await eventually(lambda: len(looks) > 3)
        running.cancel()
    await client.aclose()
    await real_redis.execute_command("ACL", "DELUSER", "blind")
    assert [line["event"] for line in logs] == ["redis.full", "memory.unreadable"]


class WithoutInfo:
    """A managed Redis whose proxy does not know INFO."""

    async def info(self, section: str) -> dict[str, Any]:
        raise ResponseError(f"unknown command 'INFO', with args beginning with: '{section}'")


async def test_a_redis_without_info_is_not_full_for_ever(eventually: Eventually) -> None:
    ahead = [0.0]
    headroom = Headroom(0.85)
    with capture_logs() as logs:
        watch = MemoryWatch(WithoutInfo(), headroom, clock=lambda: ahead[0])  # type: ignore[arg-type]
        watch.refused()
        running = asyncio.create_task(watch.run())
        ahead[0] = HOLD
        await eventually(lambda: not headroom.full)
        running.cancel()
    assert [line["event"] for line in logs] == ["redis.full", "memory.unreadable", "redis.relieved"]
