"""Promise 2, for a Redis that fills up: Feishu keeps what has no room, until it has."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flybridge.bridge.local.feishu.ledger import Ladder
from flybridge.bridge.local.feishu.pushes import Push
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

MEGABYTE = 1024 * 1024
FILLER = 4 * MEGABYTE
"""What somebody else keeps in this Redis."""

ROOM = 3 * MEGABYTE
"""What is left: about half for events, the rest, above the threshold, for the workers."""

BIG = {"message.chat_id": "x" * 4_000}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Feishu's ladder has rungs enough and short ones: nobody knows how long Redis stays full."""
    with EmbeddedRedis(append_only=True) as redis:
        async with LocalFeishu() as feishu:
            feishu.ledger.ladder = Ladder(rungs=(0.5,) * 60)
            stage = Stage(tmp_path, redis, feishu)
            try:
                yield stage
            finally:
                stage.end()


def limit_memory(stage: Stage, room: int, filler: int = 0) -> None:
    with stage.redis() as redis:
        used: int = redis.info("memory")["used_memory"]  # type: ignore[index]
        if filler:
            redis.set("filler", bytes(filler))
        redis.config_set("maxmemory", used + filler + room)


def status_of(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
        shown: dict[str, Any] = json.load(answer)
        return shown


async def push_until_full(stage: Stage, big: dict[str, str]) -> list[Push]:
    """Push until Feishu has heard a good many 500s; nobody reads."""
    pushes: list[Push] = []
    while stage.feishu.stats["nacked"] < 30:
        pushes.append(stage.feishu.push(message(**big)))
        await asyncio.sleep(0.008)
        assert len(pushes) < 2_000
    return pushes


async def test_a_full_redis_is_drained_by_workers_while_feishu_keeps_the_rest(
    stage: Stage,
) -> None:
    port = free_port()
    leader = await stage.leader(ops_port=port)
    limit_memory(stage, ROOM, FILLER)

    pushes = await push_until_full(stage, BIG)
    said = await leader.logged("redis.full")
    assert not said["refused"]
    assert said["used"] >= 0.85 * said["maxmemory"]
    shown = await asyncio.to_thread(status_of, port)
    assert shown["full"]
    assert shown["memory_used"] >= 0.85 * shown["memory_limit"]
    stored = [entry["event_id"] for entry in stage.entries()]
    assert 50 < len(stored) < len(pushes)

    stage.worker()
    await stage.settled(stored)
    with stage.redis() as redis:
        redis.delete("filler")
    await leader.logged("redis.relieved", within=5)
    await eventually(lambda: all(push.acked for push in pushes), within=30)
    event_ids = [push.event_id for push in pushes]
    await stage.settled(event_ids)

    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert leader.process.poll() is None
    assert not leader.lines("lease.lost")
    assert not leader.lines("publish.failed")


async def test_who_has_no_room_at_all_answers_at_once_and_takes_up_again_by_itself(
    stage: Stage,
) -> None:
    """The threshold is out of the way: Redis itself refuses."""
    leader = await stage.leader(memory_threshold=1)
    limit_memory(stage, -1)

    pushes = [stage.feishu.push(message()) for _ in range(20)]
    await eventually(lambda: stage.feishu.stats["nacked"] >= 20, within=1.5)
    await leader.logged("redis.full", refused=True)
    limit_memory(stage, 64 * MEGABYTE)
    await leader.logged("redis.relieved")
    stage.worker()

    await stage.went_through(pushes, within=30)
    assert len(leader.lines("redis.full")) == 1


async def test_a_worker_that_starts_where_nothing_has_room_drains_it(stage: Stage) -> None:
    """Redis refuses every write but those that were made for this."""
    leader = await stage.leader()
    pushes = [stage.feishu.push(message(text)) for text in ("hello", "hello", "fail 1")]
    await eventually(lambda: all(push.acked for push in pushes))
    with stage.redis() as redis:
        redis.config_set("maxmemory", 1)

    worker = await stage.ready_worker("worker-1", "--concurrency", "1")
    await stage.settled([push.event_id for push in pushes])
    asked = stage.start("list", "handlers", "list")
    assert await asked.ended() == 0
    assert "acting:act" in asked.log.read_text()
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    forgetting = stage.start("forget", "groups", "forget", "workers", "--yes")
    assert await forgetting.ended() == 0, forgetting.log.read_text()

    for level in ("error", "critical"):
        assert f'"level": "{level}"' not in worker.log.read_text()
    assert leader.process.poll() is None
