"""What probes and operators are told by a leader, by a standby, and in trouble."""

from __future__ import annotations

import os
import resource
import signal
import socket
from contextlib import ExitStack

from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


async def test_leader_and_standby_are_both_live_and_ready_and_only_one_leads(
    stage: Stage,
) -> None:
    first, second = OpsPort(), OpsPort()
    leader = await stage.leader("bridge-1", ops_port=first.port)
    standby = stage.bridge("bridge-2", ops_port=second.port)
    await eventually(lambda: first.code("/readyz") == second.code("/readyz") == 200)
    push = stage.feishu.push(message())
    await eventually(lambda: push.acked)

    assert first.ask("/livez") == second.ask("/livez") == (200, "ok\n")
    leading, waiting = first.status(), second.status()
    assert (leading["state"], waiting["state"]) == ("leading", "standby")
    assert (leading["pid"], waiting["pid"]) == (leader.pid, standby.pid)
    assert leading["outcomes"] == {"published": 1}
    assert waiting["outcomes"] == {}
    assert leading["pong_seen"]
    assert leading["term"] == leader.lines("lease.acquired")[0]["term"]
    assert waiting["term"] == 0
    identity = leader.lines("lease.acquired")[0]["identity"]
    assert leading["leader"] == waiting["leader"] == identity
    assert first.ask("/leaderz") == (200, f"leader: {identity}\n")
    assert second.ask("/leaderz") == (404, f"leader: {identity}\n")


async def test_a_leader_that_gets_no_pong_is_live_but_not_ready(stage: Stage) -> None:
    ops = OpsPort()
    stage.feishu.faults.config(PingInterval=1)
    stage.feishu.faults.drop_pongs()
    await stage.leader(ops_port=ops.port)

    await eventually(lambda: stage.feishu.stats["pings"] > 0)
    assert ops.ask("/readyz") == (503, "[-]feishu: no pong yet; connecting\n")
    assert ops.code("/livez") == ops.code("/leaderz") == 200

    stage.feishu.faults.clear()
    await eventually(lambda: ops.code("/readyz") == 200)


async def test_without_redis_nobody_is_ready_but_nobody_is_to_be_restarted(stage: Stage) -> None:
    ops = OpsPort()
    # A deadline so late that its end has to be told at once, not when the lease is given back.
    await stage.leader(ops_port=ops.port, renew_deadline=1.7)
    await eventually(lambda: ops.code("/readyz") == 200)

    os.kill(stage.redis_server.pid, signal.SIGSTOP)
    try:
        await eventually(lambda: ops.code("/readyz") == 503)
        assert "redis: no answer to the lease calls" in ops.ask("/readyz")[1]
        assert ops.code("/livez") == 200
        assert ops.code("/leaderz") == 404
    finally:
        os.kill(stage.redis_server.pid, signal.SIGCONT)
    await eventually(lambda: ops.code("/leaderz") == ops.code("/readyz") == 200)


async def test_half_sent_requests_cost_no_event_and_hardly_a_log_line(stage: Stage) -> None:
    ops = OpsPort()
    leader = await stage.leader(ops_port=ops.port)
    resource.prlimit(leader.pid, resource.RLIMIT_NOFILE, (100, 100))
    lines = len(leader.log.read_text().splitlines())

    with ExitStack() as stack:
        for _ in range(300):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", ops.port)))
            half.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Half: ")
        stage.feishu.faults.cut()
        push = stage.feishu.push(message())
        await eventually(lambda: push.acked)
        await eventually(lambda: ops.code("/readyz") == 200)
        assert ops.code("/livez") == 200

    told = leader.log.read_text().splitlines()[lines:]
    assert len(leader.lines("web.crowded")) == 1
    assert len(told) < 10, told
