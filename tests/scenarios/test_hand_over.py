"""A leader that is told to stop hands over at once, and finishes what it has begun."""

from __future__ import annotations

import os
import signal
import time

from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Stage, message, time_of
from tests.waiting import eventually

HAND_OVER = 2.0
"""Seconds from the signal until the other leads."""

LONG_LEASE = {"lease_duration": 8, "renew_deadline": 6}
"""Waiting such a lease out would be seen."""


async def test_sigterm_hands_over_in_less_than_two_seconds_and_loses_nothing(
    stage: Stage,
) -> None:
    leader, standby = await stage.leader_standby_worker(**LONG_LEASE)

    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        told = time.time()
        leader.send(signal.SIGTERM)
        assert await leader.ended() == 0
        took = time.time() - told
        acquired = await standby.logged("lease.acquired")
        await standby.logged("feishu.connected")
        pushed = len(pushes)
        await eventually(lambda: len(pushes) > pushed + 20)

    assert took < HAND_OVER
    assert time_of(acquired) - told < HAND_OVER
    await stage.went_through(pushes)
    assert stage.counted() == dict.fromkeys((push.event_id for push in pushes), 1)


async def test_what_is_on_its_way_into_redis_at_sigterm_is_still_published_and_acked(
    stage: Stage,
) -> None:
    ops = OpsPort()
    leader = await stage.leader("bridge-1", ops_port=ops.port, **LONG_LEASE)

    os.kill(stage.redis_server.pid, signal.SIGSTOP)
    try:
        pushes = [stage.feishu.push(message()) for _ in range(10)]
        await eventually(lambda: ops.status()["waiting"] == len(pushes))
        leader.send(signal.SIGTERM)
        await leader.logged("bridge.state_changed", state="draining")
    finally:
        os.kill(stage.redis_server.pid, signal.SIGCONT)

    assert await leader.ended() == 0
    assert [[attempt.ending for attempt in push.attempts] for push in pushes] == [["acked"]] * 10
    assert len(stage.entries()) == len(pushes)
