"""What options of the C# service are for, seen from outside: a bridge, a local Feishu, a Redis.

That they are read under every name is for `test_seed_options.py`; the others are in `test_manager`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis

from flybridge.bridge.config.layers import Written
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.feishu.backoff import Backoff
from flybridge.bridge.lifecycle import Disconnected, Errored
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.store.raw_pipeline import RawPipeline
from flybridge.handlers.samples import sample
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("no_settings")

Make = Callable[..., ConnectionManager]
PATIENCE = 5.0


@pytest.fixture
async def feishu() -> AsyncIterator[LocalFeishu]:
    async with LocalFeishu() as feishu:
        yield feishu


@pytest.fixture
async def make(feishu: LocalFeishu, real_url: str, real_redis: Redis) -> AsyncIterator[Make]:
    """Makes a manager with options as the seed names them."""
    managers: list[ConnectionManager] = []

    def make(**options: Any) -> ConnectionManager:
        settings = BridgeSettings.load(
            app_id=feishu.app_id,
            app_secret=feishu.app_secret,
            domain=feishu.url,
            redis_url=real_url,
            configured=[tuple(Written(name, value, name) for name, value in options.items())],
        )
        managers.append(ConnectionManager(settings))
        return managers[-1]

    yield make
    for manager in managers:
        await manager.stop()


@pytest.fixture
def redis_hangs(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Redis answers no publish before this is set."""
    answers, send = asyncio.Event(), RawPipeline.send

    async def hang(pipe: RawPipeline, *arguments: Any, **options: Any) -> Any:
        await answers.wait()
        return await send(pipe, *arguments, **options)

    monkeypatch.setattr(RawPipeline, "send", hang)
    return answers


def push(feishu: LocalFeishu, count: int) -> None:
    for number in range(count):
        feishu.push(sample("im.message.receive_v1", event_id=f"e{number}", app_id=feishu.app_id))


async def test_no_more_events_wait_than_message_queue_capacity_allows(
    make: Make, feishu: LocalFeishu, redis_hangs: asyncio.Event
) -> None:
    async with make(MessageQueueCapacity=3) as manager:
        await manager.connected(PATIENCE)
        push(feishu, 10)
        await eventually(lambda: manager.status().outcomes.get("capacity") == 7)
        assert manager.status().waiting == 3
        redis_hangs.set()
        await eventually(lambda: manager.status().outcomes.get("published") == 3)


@pytest.mark.parametrize(("enabled", "refused"), [(True, False), (False, True)])
async def test_without_enable_message_queue_no_event_waits_for_those_before_it(
    make: Make,
    feishu: LocalFeishu,
    redis_hangs: asyncio.Event,
    *,
    enabled: bool,
    refused: bool,
) -> None:
    async with make(EnableMessageQueue=enabled) as manager:
        await manager.connected(PATIENCE)
        for _ in range(3):
            arrived = manager.status().frames.get("event", 0)
            push(feishu, 10)
            await eventually(lambda: manager.status().frames.get("event", 0) >= arrived + 10)  # noqa: B023
        assert ("capacity" in manager.status().outcomes) is refused
        redis_hangs.set()


async def test_reconnect_delay_bounds_the_first_wait_and_later_ones_double(
    make: Make, feishu: LocalFeishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff.__init__, "__defaults__", (lambda: 1.0,))  # no jitter
    feishu.faults.refuse_discovery(code=1, times=4)  # the first is no attempt to connect
    manager = make(ReconnectDelayMs=100)
    failed: list[Errored] = []
    manager.subscribe(Errored, failed.append)
    async with manager:
        await manager.connected(PATIENCE)
    first, second = (later.at - one.at for one, later in pairwise(failed))
    assert 95 <= first < 190 <= second < 600


async def test_connection_timeout_holds_for_the_upgrade_too(
    make: Make, feishu: LocalFeishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovery is answered; who listens where it points to says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(feishu, "_ws_port", silent.getsockname()[1])
        manager = make(ConnectionTimeoutMs=100)
        failed: list[Errored] = []
        manager.subscribe(Errored, failed.append)
        await asyncio.wait_for(manager.start(), PATIENCE)
        await manager.stop()
    assert "no WebSocket (timed out" in str(failed[0].error)


async def test_who_is_told_of_an_end_is_told_the_code_and_the_reason(
    make: Make, feishu: LocalFeishu
) -> None:
    manager = make(ReconnectDelayMs=1)
    ends: list[Disconnected] = []
    manager.subscribe(Disconnected, ends.append)
    async with manager:
        await manager.connected(PATIENCE)
        feishu.faults.close(code=4001, reason="moved")
        await eventually(lambda: ends)
        await manager.connected(PATIENCE)
        feishu.faults.cut()
        await eventually(lambda: len(ends) == 2)
    assert [ends[0].code, ends[1].code] == [4001, 1006]
    assert "moved" in ends[0].reason
