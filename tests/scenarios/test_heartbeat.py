"""The heartbeat of a real bridge: the log, `/status`, `/metrics` and the manager all tell it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.protocol.heartbeat import HeartbeatStatistics
from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Stage
from tests.waiting import eventually

HEARTBEATS = {
    "total": "feishu_ws_heartbeats_total",
    "missed": "feishu_ws_heartbeats_missed_total",
    "ping_interval": "feishu_ws_ping_interval_seconds",
    "mean_interval": "feishu_ws_heartbeat_interval_mean_seconds",
    "deviation": "feishu_ws_heartbeat_interval_deviation_seconds",
    "round_trip": "feishu_ws_heartbeat_round_trip_seconds",
    "mean_round_trip": "feishu_ws_heartbeat_round_trip_mean_seconds",
    "unstable": "feishu_ws_heartbeat_unstable",
    "silent": "feishu_ws_heartbeat_silent",
}
"""Field of `HeartbeatStatistics` → metric."""


async def between_two_beats(
    manager: ConnectionManager, ops: OpsPort
) -> tuple[HeartbeatStatistics, dict[str, Any], dict[str, float]]:
    """The heartbeat of one moment: of the manager, of `/status`, and all metrics."""
    while True:
        told = manager.heartbeat
        status = await asyncio.to_thread(ops.status)
        metrics = await asyncio.to_thread(ops.metrics)
        now = manager.heartbeat
        if (now.total, now.missed, now.rhythm) == (told.total, told.missed, told.rhythm):
            return told, status["heartbeat"], metrics


@pytest.fixture
def settings(stage: Stage) -> BridgeSettings:
    return BridgeSettings(
        app_id=APP_ID,
        app_secret=APP_SECRET,
        domain=stage.feishu.url,
        redis_url=stage.redis_server.url,
        ops_port=OpsPort().port,
    )


async def test_manager_status_and_metrics_tell_the_same_heartbeat(
    stage: Stage, settings: BridgeSettings
) -> None:
    ops = OpsPort(settings.ops_port)
    stage.feishu.faults.config(PingInterval=1)
    async with ConnectionManager(settings) as manager:
        await manager.connected(10)
        await eventually(lambda: manager.heartbeat.total >= 3)
        stage.feishu.faults.drop_pongs()
        await eventually(lambda: manager.heartbeat.missed >= 2)
        told, status, metrics = await between_two_beats(manager, ops)

    assert (told.rhythm, len(told.recent), told.silent) == ("missed", told.total, False)
    for name, metric in HEARTBEATS.items():
        assert getattr(told, name) == status[name] == metrics[metric], name
    assert metrics["feishu_ws_heartbeat_rhythm missed"] == 1
    assert status["last"] == pytest.approx(told.last, abs=5)
    assert metrics["feishu_ws_heartbeat_last_timestamp_seconds"] == pytest.approx(
        status["last"] / 1000, abs=0.005
    )


async def test_a_silence_is_alarming_in_log_status_and_metrics_until_a_pong_comes(
    stage: Stage,
) -> None:
    ops = OpsPort()
    stage.feishu.faults.config(PingInterval=1)
    bridge = await stage.leader(ops_port=ops.port, pong_alarm=2)
    await eventually(lambda: ops.metrics().get("feishu_ws_heartbeats_total"))
    assert ops.metrics()["feishu_ws_heartbeat_silent"] == 0

    stage.feishu.faults.drop_pongs()
    warned = await bridge.logged("heartbeat.silent", level="warning")
    assert "Feishu answers no ping" in warned["hint"]
    assert ops.status()["heartbeat"]["silent"]
    assert ops.metrics()["feishu_ws_heartbeat_silent"] == 1
    assert ops.metrics()["feishu_ws_heartbeat_rhythm silent"] == 1

    stage.feishu.faults.clear()
    await bridge.logged("heartbeat.steady")
    assert not ops.status()["heartbeat"]["silent"]
    assert ops.metrics()["feishu_ws_heartbeat_silent"] == 0
