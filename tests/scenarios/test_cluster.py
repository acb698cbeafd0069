"""Promise 2 in a Cluster: the app's slot gets another owner, and everyone follows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.scenarios.stage import message
from tests.scenarios.topologies import ClusterRedis, FollowingStage, move_slot
from tests.waiting import eventually


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterRedis]:
    with ClusterRedis(tmp_path / "redis") as cluster:
        yield cluster


@pytest.fixture
async def stage(tmp_path: Path, cluster: ClusterRedis) -> AsyncIterator[FollowingStage]:
    async with LocalFeishu(clock_scale=100.0) as feishu:
        stage = FollowingStage(tmp_path, cluster, feishu)  # type: ignore[arg-type]
        try:
            yield stage
        finally:
            stage.end()


def fail_over(cluster: ClusterRedis) -> None:
    cluster.replica.ask("CLUSTER", "FAILOVER")


def move_the_slot(cluster: ClusterRedis) -> None:
    move_slot(cluster.owner, cluster.others[0], cluster.primaries)


@pytest.mark.parametrize("change", [fail_over, move_the_slot])
async def test_events_flow_on_when_the_slot_has_another_owner(
    stage: FollowingStage, cluster: ClusterRedis, change: Callable[[ClusterRedis], None]
) -> None:
    worker = await stage.bridge_and_worker(broker_url="memory://")

    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        change(cluster)
        pushed = len(pushes)
        await worker.logged("redis.primary_changed")
        await eventually(lambda: len(pushes) > pushed + 20)

    await stage.went_through(pushes)
    assert stage.counted().keys() == {push.event_id for push in pushes}
    assert [actor.process.poll() for actor in stage.actors] == [None, None]


async def test_celery_may_have_a_redis_beside_the_cluster(stage: FollowingStage) -> None:
    with EmbeddedRedis() as broker:
        await stage.bridge_and_worker(broker_url=broker.url)
        await stage.settled(stage.push(message()))
        assert await stage.worker_answers_celery(broker_url=broker.url)
