"""Promise 2, for the bridge: a killed leader costs no event and at most one lease."""

from __future__ import annotations

import os
import signal
import time

from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Stage, message, time_of
from tests.waiting import eventually

TAKE_OVER = 2.0 + 0.3
"""Seconds: lease_duration + retry_period of the stage."""

SCHEDULING = 0.5
"""Seconds that a busy machine may add."""


async def test_the_standby_leads_within_a_lease_and_every_event_is_handled_once(
    stage: Stage,
) -> None:
    leader, standby = await stage.leader_standby_worker()

    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        killed = time.time()
        leader.kill()
        acquired = await standby.logged("lease.acquired")
        await standby.logged("feishu.connected")
        pushed = len(pushes)
        await eventually(lambda: len(pushes) > pushed + 20)

    assert time_of(acquired) - killed < TAKE_OVER + SCHEDULING
    await stage.went_through(pushes)
    assert stage.counted() == dict.fromkeys((push.event_id for push in pushes), 1)
    assert any(attempt.ending == "unreachable" for push in pushes for attempt in push.attempts)


async def test_an_event_that_redis_had_not_taken_is_not_acked_and_comes_again(
    stage: Stage,
) -> None:
    ops = OpsPort()
    leader = await stage.leader("bridge-1", ops_port=ops.port)
    standby = stage.bridge("bridge-2")
    await standby.logged("bridge.started")
    first = stage.feishu.push(message())
    await eventually(lambda: first.acked)

    os.kill(stage.redis_server.pid, signal.SIGSTOP)
    try:
        pushes = [stage.feishu.push(message()) for _ in range(10)]
        await eventually(lambda: ops.status()["waiting"] == len(pushes))
        leader.kill()
    finally:
        os.kill(stage.redis_server.pid, signal.SIGCONT)

    await eventually(lambda: all(push.acked for push in pushes))
    assert {push.attempts[0].ending for push in pushes} == {"cut"}
    # Redis found the dead leader's publishes in its socket when it woke up: one is enough.
    assert sorted(entry["event_id"] for entry in stage.entries()) == sorted(
        push.event_id for push in [first, *pushes]
    )
