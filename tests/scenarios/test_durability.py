"""What an ack stands for: `none`, `aof` and `replica:N` as an operator runs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from redis import Redis

from flybridge.bridge.errors import EXIT_REDIS
from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


@pytest.fixture
def replica(stage: Stage) -> Iterator[EmbeddedRedis]:
    """A replica of the stage's Redis, in step with it."""
    with stage.redis() as primary:
        primary.config_set("repl-diskless-sync-delay", 0)
    with EmbeddedRedis() as server:
        with Redis.from_url(server.url, protocol=2) as follower:
            follower.replicaof("127.0.0.1", stage.redis_server.port)
        yield server
        os.kill(server.pid, signal.SIGCONT)


def linked(replica: EmbeddedRedis) -> bool:
    with Redis.from_url(replica.url, protocol=2) as follower:
        state: str = follower.info("replication")["master_link_status"]  # type: ignore[index]
        return state == "up"


def event_ids_at(replica: EmbeddedRedis, stage: Stage) -> set[str]:
    with Redis.from_url(replica.url, protocol=2) as follower:
        rows: list[tuple[bytes, dict[bytes, bytes]]] = follower.xrange(  # type: ignore[assignment]
            stage.keys.stream("im.message.receive_v1")
        )
    return {fields[b"event_id"].decode() for _, fields in rows}


async def test_while_the_replica_is_away_nothing_is_acked_and_later_everything_once(
    stage: Stage, replica: EmbeddedRedis
) -> None:
    await eventually(lambda: linked(replica))
    leader = await stage.leader(durability="replica:1")
    stage.worker()
    first = [stage.feishu.push(message()) for _ in range(20)]
    await eventually(lambda: all(push.acked for push in first))
    assert event_ids_at(replica, stage) >= {push.event_id for push in first}

    os.kill(replica.pid, signal.SIGSTOP)
    second = [stage.feishu.push(message()) for _ in range(20)]
    await eventually(lambda: stage.feishu.stats["nacked"] >= 20)
    assert not any(push.acked for push in second)
    (failure,) = leader.lines("publish.failed")
    assert failure["error"] == "replica:1: 0 of 1 confirmed in time"
    os.kill(replica.pid, signal.SIGCONT)

    await stage.went_through([*first, *second])
    assert stage.counted() == {push.event_id: 1 for push in [*first, *second]}
    assert leader.lines("publish.recovered")


async def test_what_was_acked_is_on_the_replica_when_the_primary_is_gone(
    stage: Stage, replica: EmbeddedRedis
) -> None:
    await eventually(lambda: linked(replica))
    await stage.leader(durability="replica:1")
    async with stage.traffic(every=0.002) as pushes:
        await eventually(lambda: sum(push.acked for push in pushes) > 200)
        acked = {push.event_id for push in pushes if push.acked}
        stage.redis_server.kill()
    assert event_ids_at(replica, stage) >= acked


async def test_a_missing_replica_is_said_at_the_start(stage: Stage) -> None:
    leader = await stage.leader(durability="replica:2")
    (said,) = leader.lines("durability.short")
    assert (said["replicas"], said["wanted"]) == (0, 2)


async def test_aof_is_refused_with_a_sentence_where_redis_answers_before_its_disk(
    stage: Stage,
) -> None:
    bridge = stage.bridge(durability="aof")
    assert await bridge.ended() == EXIT_REDIS
    (last,) = bridge.last_words()
    assert last.startswith("FLYBRIDGE_DURABILITY is aof, but this Redis answers before")
    assert "CONFIG SET appendfsync always" in last


async def test_with_aof_and_always_what_was_acked_outlives_a_killed_redis(stage: Stage) -> None:
    with stage.redis() as redis:
        redis.config_set("appendfsync", "always")
    leader = await stage.leader(durability="aof", renew_deadline=4, lease_duration=6)
    async with stage.traffic(every=0.005) as pushes:
        await eventually(lambda: sum(push.acked for push in pushes) > 100)
        acked = {push.event_id for push in pushes if push.acked}
        stage.redis_server.kill()
        stage.redis_server.start()
        await leader.logged("publish.recovered")
    assert {entry["event_id"] for entry in stage.entries()} >= acked
