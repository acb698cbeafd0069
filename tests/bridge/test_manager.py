"""The manager in a running loop, with a local Feishu on the real protocol and a real Redis."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError
from structlog.testing import capture_logs

from flybridge.bridge import manager as module
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.errors import (
    EXIT_SETTINGS,
    ConnectionOver,
    FeishuRefused,
    Misused,
    NotConnected,
    RedisUnreachable,
    SettingsInvalid,
)
from flybridge.bridge.feishu.backoff import Backoff, Pace
from flybridge.bridge.lifecycle import (
    Connected,
    Disconnected,
    Errored,
    HeartbeatReceived,
    Leading,
    MessageReceived,
    SteppedDown,
)
from flybridge.bridge.local.feishu.server import APP_ID, LocalFeishu
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.ops.status import State
from flybridge.bridge.ops.web import PortTaken
from flybridge.bridge.protocol import frames
from flybridge.bridge.store.raw_pipeline import RawPipeline
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.samples import sample
from tests.waiting import eventually

PATIENCE = 5.0
TYPE = "im.message.receive_v1"
KINDS_OF_TEXT = {"ping", "pong", "heartbeat", "auth", "event"}
EVERYTHING = (Connected, Disconnected, Errored, Leading, SteppedDown)


class Stage:
    """A Feishu and a Redis, and managers between them."""

    def __init__(self, feishu: LocalFeishu, redis_url: str, redis: Redis) -> None:
        self.feishu, self.redis_url, self.redis = feishu, redis_url, redis
        self.managers: list[ConnectionManager] = []

    def manager(self, **options: Any) -> ConnectionManager:
        given = {
            "app_id": self.feishu.app_id, "app_secret": self.feishu.app_secret,
            "domain": self.feishu.url, "redis_url": self.redis_url,
            "lease_duration": 0.6, "renew_deadline": 0.4, "retry_period": 0.05,
            "reconnect_delay": 0.01,
        }  # fmt: skip
        manager = ConnectionManager(BridgeSettings.load(**{**given, **options}))
        self.managers.append(manager)
        return manager

    async def end(self) -> None:
        for manager in self.managers:
            await manager.stop()


@pytest.fixture
async def stage(real_url: str, real_redis: Redis) -> AsyncIterator[Stage]:
    async with LocalFeishu() as feishu:
        stage = Stage(feishu, real_url, real_redis)
        yield stage
        await stage.end()


@pytest.fixture
async def gateway(real_url: str, real_redis: Redis) -> AsyncIterator[Stage]:
    """Speaks the text dialect."""
    async with LocalFeishu(text_dialect=True) as feishu:
        stage = Stage(feishu, real_url, real_redis)
        yield stage
        await stage.end()


@pytest.mark.parametrize("settings", [None, {"app_secret": "s3cret"}, "redis://:s3cret@host"])
def test_what_is_no_settings_is_refused_and_not_shown(settings: Any) -> None:
    with pytest.raises(TypeError, match=r"give BridgeSettings\.load") as refused:
        ConnectionManager(settings)
    assert "s3cret" not in str(refused.value)


async def test_a_decorator_without_its_kind_is_refused(stage: Stage) -> None:
    manager: Any = stage.manager()
    with pytest.raises(TypeError, match="give one of Connected"):

        @manager.on
        def forgotten(event: Connected) -> None: ...


def told(manager: ConnectionManager, *kinds: Any) -> list[Any]:
    """What happens from now on."""
    seen: list[Any] = []
    for kind in kinds:
        manager.subscribe(kind, seen.append)
    return seen


def kinds(seen: list[Any]) -> list[type]:
    return [type(each) for each in seen]


def tasks() -> set[str]:
    """Names of the bridge's tasks."""
    names = {task.get_name() for task in asyncio.all_tasks()}
    return {name for name in names if name != "web" and not name.startswith("Task-")}


class TestLife:
    async def test_a_start_connects_and_a_stop_hands_the_lease_back(self, stage: Stage) -> None:
        manager = stage.manager()
        seen = told(manager, *EVERYTHING)
        assert manager.state is State.STOPPED
        await manager.start()
        assert (manager.is_connected, manager.state) == (True, State.LEADING)
        term = manager.status().term
        began = time.monotonic()
        await manager.stop()
        assert time.monotonic() - began < 2.0
        assert (manager.is_connected, manager.state) == (False, State.STOPPED)
        assert kinds(seen) == [Leading, Connected, Disconnected, SteppedDown]
        assert (seen[0].term, seen[3]) == (term, SteppedDown(term, "released"))
        assert (seen[2].code, seen[2].reason) == (1000, "closed by us")
        assert abs(seen[1].at - time.time() * 1000) < 10_000
        assert await stage.redis.hget(Keys(APP_ID).lease, "holder") == b""
        assert tasks() == set()

    async def test_an_event_takes_its_way_while_the_manager_runs(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            seen = told(manager, MessageReceived)
            push = stage.feishu.push(sample(TYPE, event_id="e1", app_id=APP_ID))
            assert await push.wait(PATIENCE)
        ((_, fields),) = await stage.redis.xrange(Keys(APP_ID).stream(TYPE))
        assert (seen[0].kind, seen[0].payload) == ("event", fields[b"envelope"])
        assert seen[0].message_id

    async def test_start_after_stop_works_and_subscriptions_stay(self, stage: Stage) -> None:
        manager = stage.manager()
        seen = told(manager, Connected)
        for times in (1, 2, 3):
            await manager.start()
            await eventually(lambda times=times: manager.heartbeat.total == times)
            await manager.stop()
            assert (len(seen), tasks()) == (times, set())

    async def test_a_second_start_is_a_sentence(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            with pytest.raises(Misused, match=r"await stop\(\)"):
                await manager.start()
            assert manager.is_connected

    async def test_a_stop_may_come_at_any_time_and_twice(self, stage: Stage) -> None:
        manager = stage.manager()
        await manager.stop()
        await manager.start()
        await asyncio.gather(manager.stop(), manager.stop(), manager.wait())
        await manager.stop()
        await manager.wait()

    async def test_a_stop_during_the_start_is_obeyed(self, stage: Stage) -> None:
        manager = stage.manager()
        starting = asyncio.create_task(manager.start())
        await asyncio.sleep(0)
        await manager.stop()
        await starting
        assert (manager.state, tasks()) == (State.STOPPED, set())

    async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_running(
        self, stage: Stage
    ) -> None:
        manager = stage.manager()
        cancelled = 0
        for turns in range(0, 48, 4):
            starting = asyncio.create_task(manager.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            if starting.cancel():
                cancelled += 1
                with pytest.raises(asyncio.CancelledError):
                    await starting
                assert (manager.state, tasks()) == (State.STOPPED, set()), turns
            await manager.stop()
        assert cancelled > 5

    async def test_after_the_end_the_status_is_there_without_a_loop(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            pass
        assert (await asyncio.to_thread(manager.status)).state is State.STOPPED

    async def test_managers_of_two_apps_run_beside_each_other(
        self, stage: Stage, real_url: str
    ) -> None:
        async with LocalFeishu(app_id="cli_other") as other:
            second = Stage(other, real_url, stage.redis).manager()
            async with stage.manager() as first, second:
                await asyncio.gather(first.connected(PATIENCE), second.connected(PATIENCE))

    async def test_before_the_start_there_is_nothing_to_ask_for(self, stage: Stage) -> None:
        manager = stage.manager()
        assert not manager.is_connected
        assert manager.heartbeat.total == 0
        with pytest.raises(Misused, match=r"start\(\)"):
            manager.status()
        with pytest.raises(Misused, match=r"start\(\)"):
            await manager.wait()
        with pytest.raises(NotConnected, match="not running"):
            await manager.connected(PATIENCE)
        with pytest.raises(NotConnected, match="not running"):
            await manager.send(b"")
        with pytest.raises(NotConnected, match="not running"):
            await manager.reconnect()


class TestFailures:
    async def test_wrong_credentials_come_out_of_the_start(self, stage: Stage) -> None:
        manager = stage.manager(app_secret="wrong")
        seen = told(manager, Errored)
        with capture_logs() as logs, pytest.raises(FeishuRefused, match="FLYBRIDGE_APP_SECRET"):
            await manager.start()
        assert [type(each.error) for each in seen] == [FeishuRefused]
        assert not [line for line in logs if line["event"] == "bridge.ended"]
        assert tasks() == set()

    async def test_no_redis_comes_out_of_the_start_which_may_be_repeated(
        self, stage: Stage
    ) -> None:
        manager = stage.manager(redis_url="redis://127.0.0.1:1/0")
        for _ in range(2):
            with pytest.raises(RedisUnreachable):
                await manager.start()
        assert manager.state is State.STOPPED

    async def test_a_taken_ops_port_comes_out_of_the_start(self, stage: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            manager = stage.manager(ops_port=taken.getsockname()[1])
            with pytest.raises(PortTaken, match="FLYBRIDGE_OPS_PORT"):
                await manager.start()

    async def test_a_start_returns_though_feishu_is_away_and_tells_each_attempt(
        self, stage: Stage
    ) -> None:
        stage.feishu.faults.refuse_discovery(code=1, times=4)  # the first is no attempt to connect
        manager = stage.manager()
        seen = told(manager, Errored, Connected)
        await manager.start()
        assert not manager.is_connected
        await manager.connected(PATIENCE)
        assert kinds(seen) == [Errored, Errored, Errored, Connected]

    async def test_an_end_that_nobody_waits_for_is_logged_and_told(self, stage: Stage) -> None:
        manager = stage.manager(auto_reconnect=False)
        seen = told(manager, Errored)
        await manager.start()
        with capture_logs() as logs:
            stage.feishu.faults.close(code=1000, reason="bye")
            await eventually(lambda: manager.state is State.STOPPED and seen)
        (ended,) = (line for line in logs if line["event"] == "bridge.ended")
        assert "FLYBRIDGE_AUTO_RECONNECT" in ended["reason"]
        assert isinstance(seen[-1].error, ConnectionOver)
        with pytest.raises(ConnectionOver):
            await manager.wait()

    async def test_an_end_that_somebody_waits_for_is_theirs_to_log(self, stage: Stage) -> None:
        manager = stage.manager(auto_reconnect=False)
        await manager.start()
        waiting = asyncio.create_task(manager.wait())
        stage.feishu.faults.close(code=1000, reason="bye")
        with capture_logs() as logs, pytest.raises(ConnectionOver, match="closed by Feishu 1000"):
            await waiting
        assert not [line for line in logs if line["event"] == "bridge.ended"]
        assert await stage.redis.hget(Keys(APP_ID).lease, "holder") == b""
        with pytest.raises(ConnectionOver):
            await manager.connected(PATIENCE)

    async def test_so_many_failed_attempts_and_no_more(self, stage: Stage) -> None:
        manager = stage.manager(max_reconnect_attempts=3)
        await manager.start()
        before = stage.feishu.stats["discoveries"]
        stage.feishu.faults.refuse_discovery(code=1)
        stage.feishu.faults.cut()
        with pytest.raises(ConnectionOver, match=r"3 attempts .* failed in a row"):
            await manager.wait()
        # What was cut had hardly begun, and counts.
        assert stage.feishu.stats["discoveries"] - before == 2

    async def test_connections_that_end_at_once_are_failed_attempts(self, stage: Stage) -> None:
        manager = stage.manager(max_reconnect_attempts=3)
        connected = told(manager, Connected)
        manager.subscribe(Connected, lambda _: stage.feishu.faults.close(code=1000, reason="no"))
        await manager.start()
        with pytest.raises(ConnectionOver, match=r"3 attempts .* ended at once .*1000 no"):
            await asyncio.wait_for(manager.wait(), PATIENCE)
        assert len(connected) == 3

    async def test_the_first_attempt_is_the_last_one_without_auto_reconnect(
        self, stage: Stage
    ) -> None:
        stage.feishu.faults.refuse_discovery(code=1, times=2)  # the first is no attempt to connect
        with pytest.raises(ConnectionOver, match="FLYBRIDGE_AUTO_RECONNECT"):
            await stage.manager(auto_reconnect=False).start()

    async def test_a_standby_with_a_wrong_secret_does_not_start(self, stage: Stage) -> None:
        async with stage.manager() as leader:
            with pytest.raises(FeishuRefused, match="FLYBRIDGE_APP_SECRET"):
                await stage.manager(app_secret="not-the-secret").start()
            assert leader.is_connected

    async def test_a_proxy_that_is_not_supported_is_refused_before_anything_starts(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", "socks5h://127.0.0.1:1")
        with pytest.raises(SettingsInvalid, match="https_proxy names a proxy of socks5h") as told:
            await stage.manager(domain="feishu").start()
        assert told.value.exit_code == EXIT_SETTINGS

    async def test_a_discovery_that_takes_too_long_is_given_up(self, stage: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            domain = f"http://127.0.0.1:{silent.getsockname()[1]}"
            manager = stage.manager(domain=domain, connection_timeout=0.1)
            seen = told(manager, Errored)
            began = time.monotonic()
            await manager.start()
            await manager.stop()
        assert time.monotonic() - began < 2.0
        assert "timed out" in str(seen[0].error)


class TestTheConnection:
    async def test_a_reconnect_is_not_misled_by_failures_that_count_no_more(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.feishu.faults.refuse_discovery(code=1, times=2)
        async with stage.manager() as manager:
            await manager.connected(PATIENCE)
            monkeypatch.setattr(manager._supervisor._reconnector, "_pace", Pace(steady=0.0))
            await manager.reconnect()
            assert manager.status().connects == 2

    async def test_a_standby_is_not_connected_and_says_who_is(self, stage: Stage) -> None:
        leader, standby = stage.manager(), stage.manager()
        await leader.start()
        await standby.start()
        assert (standby.state, standby.is_connected) == (State.STANDBY, False)
        with pytest.raises(TimeoutError, match=leader.status().identity):
            await standby.connected(0.05)
        for call in (standby.send(b""), standby.reconnect()):
            with pytest.raises(NotConnected, match="only the leader is connected"):
                await call
        waiting = asyncio.create_task(standby.connected())
        await leader.stop()
        await asyncio.wait_for(waiting, PATIENCE)

    async def test_waiting_for_a_connection_ends_when_the_manager_is_stopped(
        self, stage: Stage
    ) -> None:
        leader, standby = stage.manager(), stage.manager()
        await leader.start()
        await standby.start()
        waiting = asyncio.create_task(standby.connected())
        await asyncio.sleep(0)
        await standby.stop()
        with pytest.raises(NotConnected):
            await waiting

    async def test_bytes_are_sent_as_they_are(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            pings = stage.feishu.stats["pings"]
            ping = frames.new(service=1, method=frames.CONTROL, headers={"type": "ping"})
            await manager.send(frames.encode(ping))
            await eventually(lambda: stage.feishu.stats["pings"] > pings)

    async def test_text_is_no_part_of_feishus_protocol(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            with pytest.raises(Misused, match="FLYBRIDGE_TEXT_DIALECT"):
                await manager.send("hello")
            with pytest.raises(TypeError, match="str or bytes"):
                await manager.send({"no": "json"})  # type: ignore[arg-type]
            assert manager.is_connected

    async def test_half_a_character_is_refused_and_costs_nobody_an_ack(
        self, gateway: Stage
    ) -> None:
        async with gateway.manager(text_dialect=True) as manager:
            with pytest.raises(UnicodeEncodeError):
                await manager.send("\ud800")
            await manager.send('{"type":"ping"}')
            assert manager.is_connected

    async def test_a_reconnect_makes_a_new_connection_at_once(self, stage: Stage) -> None:
        async with stage.manager(reconnect_delay=60.0) as manager:
            seen = told(manager, *EVERYTHING)
            await asyncio.wait_for(manager.reconnect(), 1.0)
            assert kinds(seen) == [Disconnected, Connected]
            assert manager.is_connected

    async def test_a_reconnect_loses_no_ack_of_what_was_read(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            seen = told(manager, MessageReceived)
            events = [sample(TYPE, event_id=f"e{n}", app_id=APP_ID) for n in range(50)]
            pushes = [stage.feishu.push(event) for event in events]
            await eventually(lambda: seen)
            await manager.reconnect()
            for push in pushes:
                assert await push.wait(PATIENCE)
            assert manager.status().outcomes == {"published": 50}, "else: duplicates"

    async def test_a_reconnect_cuts_the_wait_for_the_next_attempt_short(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Backoff.__init__, "__defaults__", (lambda: 1.0,))  # no jitter
        stage.feishu.faults.refuse_discovery(code=1, times=3)
        async with stage.manager(reconnect_delay=60.0) as manager:
            with pytest.raises(NotConnected, match="no new connection yet"):
                await asyncio.wait_for(manager.reconnect(), 1.0)
            with pytest.raises(TimeoutError, match="the service is busy"):
                await manager.connected(0.2)  # the wait after that is a full one
            await asyncio.wait_for(manager.reconnect(), 1.0)
            assert manager.is_connected

    async def test_a_reconnect_by_hand_is_allowed_where_no_other_is(self, stage: Stage) -> None:
        async with stage.manager(auto_reconnect=False) as manager:
            await manager.reconnect()
            assert manager.is_connected
            stage.feishu.faults.close()
            with pytest.raises(ConnectionOver):
                await manager.wait()

    @pytest.mark.parametrize("size", [4096, 2**20])
    async def test_a_receive_buffer_of_any_size_lets_large_events_in_in_time(
        self, stage: Stage, size: int
    ) -> None:
        async with stage.manager(receive_buffer_size=size) as manager:
            await manager.connected(PATIENCE)
            text = {"message.content": "x" * 2_000_000}
            pushes = [stage.feishu.push(sample(TYPE, app_id=APP_ID, overrides=text))]
            pushes += [stage.feishu.push(sample(TYPE, app_id=APP_ID)) for _ in range(5)]
            for push in pushes:
                assert await push.wait(2.0)


class TestClient:
    async def test_it_tells_of_the_connection_and_nothing_secret(self, stage: Stage) -> None:
        manager = stage.manager()
        assert not manager.client.is_connected
        async with manager:
            await manager.connected(PATIENCE)
            pushed = stage.feishu.push(sample(TYPE, app_id=APP_ID))
            assert await pushed.wait(PATIENCE)
            client = manager.client
            assert client.is_connected
            assert client.id in stage.feishu.connections
            assert client.url.startswith("ws://127.0.0.1:")
            assert "?" not in client.url
            assert client.connected_at is not None
            assert abs(client.connected_at - time.time() * 1000) < 60_000
            assert (client.connects, client.frames["event"]) == (1, 1)
            assert client.outcomes == {"published": 1}
        ended = manager.client
        assert (ended.is_connected, ended.id, ended.connects) == (False, "", 1)


class TestSubscribers:
    async def test_each_pong_is_told_with_its_round_trip(self, stage: Stage) -> None:
        manager = stage.manager(ping_interval=2)
        seen = told(manager, HeartbeatReceived)
        await manager.start()
        await eventually(lambda: seen)
        assert (seen[0].interval, seen[0].status) == (2, "steady")
        assert 0 <= seen[0].round_trip < 1.0
        assert manager.heartbeat.last is not None
        assert abs(seen[0].at - manager.heartbeat.last) < 1_000

    async def test_a_heartbeat_of_the_text_dialect_says_itself_how_it_goes(
        self, gateway: Stage
    ) -> None:
        manager = gateway.manager(text_dialect=True)
        seen = told(manager, HeartbeatReceived)
        await manager.start()
        await eventually(lambda: seen)  # the pong
        beat = '{"type":"heartbeat","timestamp":1,"data":{"interval":30,"status":"busy"}}'
        for _ in range(10):
            for connection in gateway.feishu.connections.values():
                connection.send([beat])
        await eventually(lambda: len(seen) == 11)
        assert seen[0].round_trip is not None
        assert (seen[1].interval, seen[1].status, seen[1].round_trip) == (30, "busy", None)
        assert (seen[1].sent_at, seen[1].message) == (1_000, beat)
        assert manager.heartbeat.total == 11
        assert manager.heartbeat.last is not None
        assert manager.heartbeat.mean_interval is not None

    async def test_every_message_of_the_text_dialect_is_told(self, gateway: Stage) -> None:
        async with gateway.manager(text_dialect=True) as manager:
            await manager.connected(5)
            seen = told(manager, MessageReceived)
            ping = '{"type":"ping"}'
            for connection in gateway.feishu.connections.values():
                connection.send([ping, '{"type":"heartbeat"}', '{"type":"auth","code":0}'])
            await manager.send(ping)  # for a pong
            gateway.feishu.push(sample("im.message.receive_v1"))
            await eventually(lambda: {each.kind for each in seen} >= KINDS_OF_TEXT)
            assert next(each for each in seen if each.kind == "ping").payload == ping.encode()

    async def test_text_is_sent_where_it_is_spoken(self, gateway: Stage) -> None:
        async with gateway.manager(text_dialect=True) as manager:
            pings = gateway.feishu.stats["pings"]
            await manager.send('{"type":"ping"}')
            await eventually(lambda: gateway.feishu.stats["pings"] > pings)

    async def test_a_subscriber_that_stops_the_manager_gets_to_its_end(self, stage: Stage) -> None:
        manager = stage.manager()
        done: list[State] = []

        @manager.on(Connected)
        async def stop(connected: Connected) -> None:
            await manager.stop()
            done.append(manager.state)

        await manager.start()
        await manager.wait()
        await eventually(lambda: done == [State.STOPPED])

    async def test_no_subscriber_can_keep_the_bridge_from_its_work(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "GRACE", 0.01)
        manager = stage.manager()

        @manager.on(MessageReceived)
        def fail(received: MessageReceived) -> None:
            raise ValueError("theirs")

        @manager.on(MessageReceived)
        async def hang(received: MessageReceived) -> None:
            await asyncio.Event().wait()

        async with manager:
            pushes = [
                stage.feishu.push(sample(TYPE, event_id=f"e{n}", app_id=APP_ID)) for n in range(20)
            ]
            for push in pushes:
                assert await push.wait(PATIENCE)
            assert manager.is_connected
            began = time.monotonic()
        assert time.monotonic() - began < 2.0
        assert tasks() == set()

    async def test_a_lost_lease_is_told_with_its_reason(self, stage: Stage) -> None:
        async with stage.manager() as manager:
            seen = told(manager, SteppedDown, Disconnected)
            other = {"holder": "b", "lease_duration": 60_000}
            await stage.redis.hset(Keys(APP_ID).lease, mapping=other)
            await eventually(lambda: len(seen) == 2)
            assert (seen[0].reason, seen[1].reason) == ("taken", "aborted by us")
            assert not manager.is_connected

    async def test_an_outage_of_redis_is_told_once(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempts: list[int] = []

        async def broken(
            pipe: RawPipeline, commands: list[bytes], *patience: float, **more: float
        ) -> Any:
            attempts.append(len(commands))
            return [ConnectionError("gone")] * len(commands)

        async with stage.manager() as manager:
            seen = told(manager, Errored)
            with monkeypatch.context() as patch:
                patch.setattr(RawPipeline, "send", broken)
                for number in range(3):
                    stage.feishu.push(sample(TYPE, event_id=f"e{number}", app_id=APP_ID))
                await eventually(lambda: len(attempts) > 2)
            await eventually(lambda: manager.status().outcomes.get("published") == 3)
            assert [str(each.error) for each in seen] == ["gone"]


def test_the_grace_of_subscribers_fits_into_a_stop() -> None:
    assert module.GRACE < 1.0
