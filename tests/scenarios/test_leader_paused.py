"""Promise 5: a leader that lost its lease cannot publish, and lets go of its socket."""

from __future__ import annotations

import signal

from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

FAR = 3600
"""Seconds; a lease that does not run out while a scenario runs."""


async def test_a_paused_leader_steps_down_when_it_wakes_and_what_its_socket_stole_comes_again(
    stage: Stage,
) -> None:
    first, second = await stage.leader_standby_worker()
    (stale,) = stage.feishu.connections
    before = [stage.feishu.push(message()) for _ in range(5)]
    await eventually(lambda: all(push.acked for push in before))

    first.send(signal.SIGSTOP)
    await second.logged("feishu.connected")
    during = [stage.feishu.push(message()) for _ in range(20)]
    await eventually(lambda: all(push.attempts for push in during))
    stolen = [push for push in during if push.attempts[0].connection == stale]
    assert stolen
    first.send(signal.SIGCONT)

    await eventually(lambda: stale not in stage.feishu.connections, within=2)
    assert first.lines("feishu.aborted")
    old = (await first.logged("lease.lost"))["term"]
    new = second.lines("lease.acquired")[0]["term"]
    await stage.went_through([*before, *during])
    assert stage.counted() == dict.fromkeys((push.event_id for push in [*before, *during]), 1)
    attempts = [attempt for push in during for attempt in push.attempts]
    assert {attempt.code for attempt in attempts if attempt.connection == stale} == {None}
    assert old < new
    assert [int(entry["term"]) for entry in stage.entries()] == [old] * 5 + [new] * 20


async def test_redis_refuses_a_publish_under_an_old_term(stage: Stage) -> None:
    # The next renewal, which would tell it as well, comes seconds after the publish.
    bridge = await stage.leader(lease_duration=8, renew_deadline=6, retry_period=4)
    (connection,) = stage.feishu.connections
    term = bridge.lines("lease.acquired")[0]["term"]

    lease = {"holder": "another", "term": term + 1, "lease_duration": FAR * 1000}
    with stage.redis() as redis:
        redis.hset(stage.keys.lease, mapping=lease)
        push = stage.feishu.push(message())
        lost = await bridge.logged("lease.lost")
        assert lost["reason"] == "fenced"
        await eventually(lambda: connection not in stage.feishu.connections, within=2)
        assert stage.entries() == []
        assert push.attempts[0].code is None

        redis.hset(stage.keys.lease, "holder", "")
    await eventually(lambda: push.acked)
    (entry,) = stage.entries()
    assert int(entry["term"]) > term + 1
