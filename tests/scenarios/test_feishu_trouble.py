"""What Feishu and the network do to a connection, and what the bridge makes of each."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from flybridge.bridge.errors import EXIT_FEISHU
from flybridge.bridge.local.feishu.faults import CONNECTION_LIMIT, Faults
from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

WRONG_DOMAIN = 1_000_040_351

SILENCE = 20.0
"""Seconds from a ping to any frame, after which the bridge takes a connection for dead."""


async def connected_anew(stage: Stage, before: str, within: float = 20.0) -> None:
    """Wait for another connection than `before`, the only one."""
    await eventually(
        lambda: stage.feishu.connections and before not in stage.feishu.connections, within
    )


def cut(faults: Faults) -> None:
    faults.cut()


def close(faults: Faults) -> None:
    faults.close(code=1000, reason="bye")


def cut_while_discovery_is_busy(faults: Faults) -> None:
    faults.refuse_discovery(code=1, times=1)
    faults.cut()


def cut_while_discovery_is_broken(faults: Faults) -> None:
    faults.refuse_discovery(status=500, times=1)
    faults.cut()


def cut_while_the_upgrade_fails(faults: Faults) -> None:
    faults.refuse_upgrade(times=1)
    faults.cut()


@pytest.mark.parametrize(
    "trouble",
    [
        cut,
        close,
        cut_while_discovery_is_busy,
        cut_while_discovery_is_broken,
        cut_while_the_upgrade_fails,
    ],
)
async def test_passing_trouble_costs_neither_the_lease_nor_an_event(
    trouble: Callable[[Faults], None], stage: Stage
) -> None:
    leader = await stage.leader()
    (before,) = stage.feishu.connections

    async with stage.traffic() as pushes:
        await eventually(lambda: len(pushes) > 5)
        trouble(stage.feishu.faults)
        await connected_anew(stage, before)
        pushed = len(pushes)
        await eventually(lambda: len(pushes) > pushed + 5)

    await eventually(lambda: all(push.acked for push in pushes))
    assert sorted(entry["event_id"] for entry in stage.entries()) == sorted(
        push.event_id for push in pushes
    )
    assert stage.feishu.faults.armed() == {}
    assert not leader.lines("lease.lost")


async def test_a_half_open_connection_is_noticed_by_its_silence(stage: Stage) -> None:
    stage.feishu.faults.config(PingInterval=1)
    leader = await stage.leader()
    (before,) = stage.feishu.connections
    await eventually(lambda: stage.feishu.stats["pings"] > 1)

    stage.feishu.faults.freeze(seconds=3600)
    # Until the frozen end is gone as well, else Feishu would push to both.
    stage.feishu.faults.refuse_discovery()
    push = stage.feishu.push(message())
    closed = await leader.logged("feishu.closed", within=SILENCE + 5)
    stage.feishu.faults.cut(connection=before)
    stage.feishu.faults.clear()

    assert closed["reason"].startswith("no frame ")
    await eventually(lambda: push.acked)
    assert len(stage.entries()) == 1
    assert not leader.lines("lease.lost")


async def renewed(stage: Stage, times: int) -> None:
    """Wait until the leader has renewed its lease so many times: its own clock."""
    seen = set()

    def look() -> bool:
        with stage.redis() as redis:
            seen.add(redis.hget(stage.keys.lease, "renewed_at"))
        return len(seen) > times

    await eventually(look)


async def test_at_the_connection_limit_the_leader_says_so_and_retries_slowly(
    stage: Stage,
) -> None:
    ops = OpsPort()
    stage.feishu.faults.refuse_discovery(code=CONNECTION_LIMIT)
    bridge = stage.bridge(ops_port=ops.port)

    refused = await bridge.logged("feishu.refused")
    assert refused["retry_in"] == 30
    assert "stop the app's other long-connection clients" in refused["reason"]
    code, why = ops.ask("/readyz")
    assert code == 503
    assert "too many connections" in why

    await renewed(stage, times=5)
    assert stage.feishu.stats["discoveries"] == 2, "at the start, and to connect"
    assert not bridge.lines("lease.lost")
    bridge.send(signal.SIGTERM)
    assert await bridge.ended(within=2) == 0


async def test_a_standby_with_a_wrong_secret_ends_and_disturbs_nobody(stage: Stage) -> None:
    leader = await stage.leader("bridge-1")
    standby = stage.bridge("bridge-2", app_secret="canary-secret")
    assert await standby.ended() == EXIT_FEISHU
    assert "check FLYBRIDGE_APP_ID and FLYBRIDGE_APP_SECRET" in standby.log.read_text()
    assert not leader.lines("lease.lost")
    assert not standby.lines("lease.acquired")


async def test_a_changed_secret_is_read_from_its_file_and_until_then_nobody_leads_wrongly(
    stage: Stage,
) -> None:
    files = [stage.directory / name for name in ("secret-1", "secret-2")]
    ports = OpsPort(), OpsPort()
    for file in files:
        file.write_text(stage.feishu.app_secret + "\n")
    first, second = (
        await stage.leader(
            "bridge-1", app_secret="", app_secret_file=files[0], ops_port=ports[0].port
        ),
        stage.bridge("bridge-2", app_secret="", app_secret_file=files[1], ops_port=ports[1].port),
    )
    await eventually(lambda: all(ops.code("/readyz") == 200 for ops in ports))

    stage.feishu.change_secret("canary-two")
    assert [ops.code("/readyz") for ops in ports] == [200, 200], "what is open stays open"
    stage.feishu.faults.cut()

    for bridge in (first, second):
        refused = await bridge.logged("feishu.refused")
        assert "check FLYBRIDGE_APP_ID and FLYBRIDGE_APP_SECRET" in refused["reason"]
    await eventually(lambda: all(ops.code("/readyz") == 503 for ops in ports))
    assert all("the app secret is not valid" in ops.ask("/readyz")[1] for ops in ports)
    with stage.redis() as redis:
        assert redis.hget(stage.keys.lease, "holder") == b""

    files[1].write_bytes(b"\xef\xbb\xbfcanary-two\r\n")
    await eventually(lambda: ports[1].code("/leaderz") == ports[1].code("/readyz") == 200)
    assert ports[0].code("/readyz") == 503
    push = stage.feishu.push(message())
    await eventually(lambda: push.acked)
    files[0].write_text("canary-two")
    await eventually(lambda: ports[0].code("/readyz") == 200)
    assert len(first.lines("feishu.refused")) == len(second.lines("feishu.refused")) == 1
    assert "canary-two" not in first.log.read_text() + second.log.read_text()


async def test_a_wrong_secret_ends_the_bridge_with_a_sentence(stage: Stage) -> None:
    await ends_with(
        stage, "check FLYBRIDGE_APP_ID and FLYBRIDGE_APP_SECRET", app_secret="canary-secret"
    )
    assert "canary-secret" not in stage.actors[0].log.read_text()


async def test_a_wrong_domain_ends_the_bridge_with_a_sentence(stage: Stage) -> None:
    stage.feishu.faults.refuse_discovery(code=WRONG_DOMAIN)
    await ends_with(stage, "set FLYBRIDGE_DOMAIN=lark for an app created at Lark")


async def ends_with(stage: Stage, sentence: str, **settings: Any) -> None:
    """Start a bridge that Feishu refuses for good."""
    bridge = stage.bridge(**settings)
    assert await bridge.ended() == EXIT_FEISHU
    said = bridge.last_words()
    assert said[-1].startswith("Feishu answers")
    assert sentence in said[-1]
    assert "Traceback" not in bridge.log.read_text()
    with stage.redis() as redis:
        assert redis.hget(stage.keys.lease, "holder") in (None, b"")
