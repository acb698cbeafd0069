"""Promise 2 behind Sentinels: the primary dies, its replica takes over, nobody does a thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flybridge.bridge.local.feishu.server import LocalFeishu
from tests.scenarios.topologies import FollowingStage, SentinelRedis
from tests.waiting import eventually


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelRedis]:
    with SentinelRedis(tmp_path / "redis") as sentinels:
        yield sentinels


@pytest.fixture
async def stage(tmp_path: Path, sentinels: SentinelRedis) -> AsyncIterator[FollowingStage]:
    async with LocalFeishu(clock_scale=100.0) as feishu:
        stage = FollowingStage(tmp_path, sentinels, feishu)  # type: ignore[arg-type]
        try:
            yield stage
        finally:
            stage.end()


async def test_bridge_and_worker_follow_the_primary_and_nothing_acked_is_lost(
    stage: FollowingStage, sentinels: SentinelRedis
) -> None:
    worker = await stage.bridge_and_worker(durability="replica:1")

    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        sentinels.primary.kill()
        await eventually(sentinels.promoted)
        # An ack waits for a replica, and the promoted one has none of its own.
        sentinels.add_replica()
        pushed = len(pushes)
        await eventually(lambda: any(push.acked for push in pushes[pushed:]))
        await eventually(lambda: len(pushes) > pushed + 20)

    # Also what was acked before: an event that the fail-over had lost would have no state.
    await stage.went_through(pushes)
    assert stage.counted().keys() == {push.event_id for push in pushes}
    assert [actor.process.poll() for actor in stage.actors] == [None, None]
    assert worker.lines("redis.primary_changed")
    assert await stage.worker_answers_celery()
