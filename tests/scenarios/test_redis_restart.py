"""Promise 2, for Redis with an append-only file: everyone waits for it, and nothing is lost."""

from __future__ import annotations

import time

from tests.scenarios.stage import Stage
from tests.waiting import eventually

AWAY = 3.0
"""Seconds for which Redis is gone."""


async def gone_for_a_while() -> None:
    since = time.monotonic()
    await eventually(lambda: time.monotonic() - since > AWAY)


async def test_a_leader_whose_lease_outlasts_the_restart_asks_feishu_for_what_it_could_not_take(
    stage: Stage,
) -> None:
    leader, standby = await stage.leader_standby_worker(lease_duration=8, renew_deadline=6)

    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        stage.redis_server.stop()
        await gone_for_a_while()
        stage.redis_server.start()
        await leader.logged("publish.recovered")
        pushed = len(pushes)
        await eventually(lambda: len(pushes) > pushed + 20)

    await stage.went_through(pushes)
    assert stage.counted().keys() == {push.event_id for push in pushes}
    assert stage.feishu.stats["nacked"] > 0
    assert not leader.lines("lease.lost")
    assert not standby.lines("lease.acquired")


async def test_bridges_and_worker_find_back_after_a_killed_redis(stage: Stage) -> None:
    bridges = await stage.leader_standby_worker()
    with stage.redis() as redis:
        # By "everysec" a Redis whose disk is busy may hold back what it has answered for already.
        redis.config_set("appendfsync", "always")

    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        stage.redis_server.kill()
        await gone_for_a_while()
        stage.redis_server.start()
        await eventually(
            lambda: sum(len(bridge.lines("feishu.connected")) for bridge in bridges) > 1
        )
        pushed = len(pushes)
        await eventually(lambda: len(pushes) > pushed + 20)

    await stage.went_through(pushes)
    assert stage.counted().keys() == {push.event_id for push in pushes}
    assert bridges[0].lines("lease.lost", reason="deadline")
    assert [actor.process.poll() for actor in stage.actors] == [None] * 3
