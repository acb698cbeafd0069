"""What Prometheus scrapes from a leader and from a standby."""

from __future__ import annotations

from flybridge.bridge.ops.metrics import ROWS
from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


async def test_the_metrics_of_a_leader_move_and_a_standby_tells_only_of_itself(
    stage: Stage,
) -> None:
    first, second = OpsPort(), OpsPort()
    stage.feishu.faults.config(PingInterval=1)
    await stage.leader("bridge-1", ops_port=first.port)
    standby = stage.bridge("bridge-2", ops_port=second.port)
    await standby.logged("bridge.started")
    await eventually(lambda: "feishu_ws_heartbeat_round_trip_seconds" in first.metrics())
    before = first.metrics()

    push = stage.feishu.push(message())
    await eventually(lambda: push.acked)
    stage.feishu.push(message() | {"header": None})
    beats = before["feishu_ws_heartbeats_total"]
    await eventually(lambda: first.metrics()["feishu_ws_heartbeats_total"] >= beats + 2)
    after = first.metrics()

    assert before["feishu_bridge_deliveries_total published"] == 0
    assert after["feishu_bridge_deliveries_total published"] == 1
    assert after["feishu_bridge_deliveries_total buried"] == 1
    assert after["feishu_ws_frames_total event"] == 2
    assert after["feishu_bridge_ack_duration_seconds_count"] == 2
    assert after["feishu_bridge_ack_duration_seconds_bucket +Inf"] == 2
    assert 0 < after["feishu_bridge_ack_duration_seconds_sum"] < 2
    assert after["feishu_ws_ping_interval_seconds"] == 1
    assert 0 < after["feishu_ws_heartbeat_round_trip_seconds"] < 1
    assert 0.5 < after["feishu_ws_heartbeat_interval_mean_seconds"] < 2
    assert after["feishu_ws_pong_age_seconds"] < 2
    assert after["feishu_bridge_is_leader"] == after["feishu_ws_connected"] == 1

    waiting = second.metrics()
    assert waiting["feishu_bridge_is_leader"] == waiting["feishu_ws_connected"] == 0
    assert waiting["feishu_bridge_state standby"] == 1
    assert not any(row.name in waiting for row in ROWS if row.leading)
