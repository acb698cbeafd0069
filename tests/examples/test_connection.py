"""The examples around the connection: what is told of it, who holds it, where it may live."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections import Counter
from typing import Any

import pytest

from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.lifecycle import HeartbeatReceived
from flybridge.bridge.manager import ConnectionManager
from tests.examples.conftest import Importer, Player, done
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


async def test_what_happens_to_the_connection_is_told(play: Player, stage: Stage) -> None:
    example = await play.connected("message_service")
    await done(stage, message())
    await example.said("🚀 connected as", "📨 received", "💗 heartbeat: every")
    stage.feishu.faults.cut()
    await example.said("🔌 disconnected: 1006")
    assert await example.ended() == 0


async def test_heartbeats_are_heard_and_counted(play: Player, stage: Stage) -> None:
    example = await play.connected("heartbeats")
    await example.said("💗 at", "heartbeats: ", "mean interval: ")
    assert await example.ended() == 0


def test_the_monitor_warns_of_a_restless_heartbeat_and_of_none(
    module: Importer, capsys: pytest.CaptureFixture[str]
) -> None:
    example = module("heartbeats")
    manager = ConnectionManager(BridgeSettings.load())
    monitor, heartbeat = example.HeartbeatMonitor(manager), manager._heartbeat
    heartbeat.started(0.0)
    for number in range(20):
        heartbeat.pinged(number * 24.0)
        heartbeat.ponged(number * 24.0 + (15.0 if number % 2 else 0.1))
    monitor.on_heartbeat(HeartbeatReceived(1_763_800_000_000, 24.0, "unstable", 15.0))
    heartbeat.check(20 * 24.0 + 121.0)
    monitor.report()
    said = capsys.readouterr().out
    for text in (
        "💗 at 1763800000000, every 24.0 s, unstable",
        "⚠️ intervals vary by 14.9 s",
        "heartbeats: 20, mean interval: 24.",
        "after 15.0 s",
        "⚠️ no heartbeat for two minutes",
    ):
        assert text in said


async def test_the_connection_obeys_by_hand(play: Player, stage: Stage) -> None:
    example = play.start("connection_control")
    await example.said("connected: True", "connected again: True", "connected at the end: False")
    assert await example.actor.ended() == 0
    assert stage.feishu.stats["connections"] == 2


async def test_two_instances_share_the_events_and_each_comes_once(
    play: Player, stage: Stage
) -> None:
    first = await play.connected("distributed")
    second = play.start("distributed")
    await second.actor.logged("bridge.started")
    envelopes = [message() for _ in range(20)]
    ids = stage.push(*envelopes, *envelopes)
    await stage.settled(ids)

    def processed() -> Counter[str]:
        text = first.actor.log.read_text() + second.actor.log.read_text()
        return Counter(line.split()[1] for line in text.splitlines() if "processing" in line)

    await eventually(lambda: set(processed()) == set(ids))
    assert set(processed().values()) == {1}
    assert [await first.ended(), await second.ended()] == [0, 0]


def test_a_lock_is_not_dedup_but_a_lock_and_a_mark_are(module: Importer, stage: Stage) -> None:
    processor = module("distributed").DistributedEventProcessor
    calls: list[str] = []
    with stage.redis() as redis:
        one, other = (processor(redis, "cli_x") for _ in range(2))

        def work() -> None:
            calls.append("work")
            assert other.process("ev1", work) == "another instance is at it"

        assert one.process("ev1", work) == "done"
        assert other.process("ev1", work) == "was done before"
        redis.delete("done:ev1")
        assert other.process("ev1", lambda: calls.append("again")) == "done"
    assert calls == ["work", "again"], "with the mark gone, the lock alone lets it run again"


async def test_a_web_application_holds_the_service(play: Player, stage: Stage) -> None:
    port = free_port()
    example = await play.connected("in_a_web_app", PORT=port)
    await done(stage, message())

    def health() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as response:
            return json.load(response)

    assert await asyncio.to_thread(health) == {"connected": True}
    # uvicorn ends in good order and then passes the signal on.
    assert await example.ended() in (0, -signal.SIGTERM)
    await example.said("lease.released")
