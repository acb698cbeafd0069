"""A bridge's life with a Feishu of fakes and a real Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from flybridge.bridge.config.lease_timing import Timing
from flybridge.bridge.errors import (
    EXIT_TASK,
    ConnectionOver,
    FeishuBusy,
    FeishuCrowded,
    FeishuRefused,
    FeishuUnavailable,
    RedisUnfit,
    TaskFailed,
)
from flybridge.bridge.feishu.backoff import Attempts, Backoff, Pace
from flybridge.bridge.feishu.connection import Closed
from flybridge.bridge.housekeeping.memory import MemoryWatch
from flybridge.bridge.lifecycle import Errored
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.node.reconnector import FeedReceiver
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.node.supervisor import Supervisor
from flybridge.bridge.ops.status import Standing, State
from flybridge.bridge.protocol import frames
from flybridge.bridge.protocol.delivery import Delivery
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.streams import Keys
from tests.waiting import eventually

FAST = Timing(lease_duration=0.6, renew_deadline=0.4, retry_period=0.05)
PACE = Pace(patience=0.1, busy_retry=0.01, refused_retry=0.01, steady=0.0, look=0.01)


class Connection:
    """A connection that lives until it is ended."""

    def __init__(self, feishu: Feishu) -> None:
        self.receiver: Any = None
        self.conversation = SimpleNamespace(
            last_pong=None, config=ClientConfig(reconnect_interval=7)
        )
        self.acks: list[int] = []
        self.steps: list[str] = []
        self._feishu = feishu
        self._ended: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        return not self._ended.done()

    @property
    def ended(self) -> Closed:
        return Closed("left by us", 1006)

    async def run(self, receiver: Any) -> Closed:
        self.receiver = receiver
        return await asyncio.shield(self._ended)

    def end(self, reason: str = "bye") -> None:
        if not self._ended.done():
            self._ended.set_result(Closed(reason, 1000))

    def push(self, payload: bytes) -> None:
        frame = frames.new(service=1, method=frames.DATA, headers={"type": "event"})
        now = asyncio.get_running_loop().time()
        self.receiver.on_delivery(Delivery(frame, "event", payload, "m", "t", now))

    def pong(self) -> None:
        self.conversation.last_pong = asyncio.get_running_loop().time()

    def ack(self, delivery: Delivery, code: int, data: bytes | None = None) -> None:
        self.acks.append(code)
        self.steps.append("ack")

    def pause(self) -> None:
        self.steps.append("pause")

    async def close(self) -> None:
        self.steps.append("close")
        self.end("closed by us")

    def abort(self) -> None:
        self.steps.append("abort")
        self.end("aborted")


class Feishu:
    """Discovery and connecting; raises what `trouble` holds, one per discovery."""

    def __init__(self) -> None:
        self.trouble: list[Exception] = []
        self.always: Exception | None = None
        self.discoveries: list[dict[str, Any]] = []
        self.connections: list[Connection] = []

    async def discover(self, **known: Any) -> Any:
        self.discoveries.append(known)
        if self.always is not None:
            raise self.always
        if self.trouble:
            raise self.trouble.pop(0)
        return SimpleNamespace(config=ClientConfig(), device_id="d")

    def has_another_secret(self) -> bool:
        return False

    @asynccontextmanager
    async def connect(self, endpoint: Any, **options: Any) -> AsyncIterator[Connection]:
        connection = Connection(self)
        self.connections.append(connection)
        try:
            yield connection
        finally:
            connection.steps.append("gone")
            connection.end()

    @property
    def connection(self) -> Connection:
        return self.connections[-1]


class Recorded(Supervisor):
    """Remembers every state it came into."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.states: list[State] = []
        super().__init__(*arguments, **options)

    def _enter(self, state: State) -> None:
        before = self.state
        super()._enter(state)
        if self.state is not before:
            self.states.append(self.state)


class Bridge:
    """A running supervisor."""

    def __init__(
        self, redis: Redis, keys: Keys, name: str = "a", pace: Pace = PACE, **options: Any
    ) -> None:
        self.feishu = Feishu()
        options = {"pace": pace, "backoff": Backoff(lambda: 0.01), **options}
        around = (redis, keys, name, self.feishu, self.feishu.connect)
        self.supervisor = Recorded(*around, timing=FAST, **options)
        self.elector = self.supervisor.elector
        self.states = self.supervisor.states

    async def __aenter__(self) -> Bridge:
        self.task = asyncio.create_task(self.supervisor.run())
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.supervisor.stop()
        await asyncio.wait({self.task}, timeout=5)
        with suppress(FeishuRefused):
            await self.task

    @property
    def connected(self) -> bool:
        return self.supervisor.status().connected_for is not None


def envelope(event_id: str = "e1") -> bytes:
    header = {"event_id": event_id, "event_type": "im.x", "app_id": "cli_test"}
    return json.dumps({"schema": "2.0", "header": header, "event": {}}).encode()


async def test_the_leader_connects_publishes_and_acks(real_redis: Redis, keys: Keys) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        bridge.feishu.connection.push(envelope())
        await eventually(lambda: bridge.feishu.connection.acks == [200])
        ((_, fields),) = await real_redis.xrange(keys.stream("im.x"))
        assert int(fields[b"term"]) == bridge.supervisor.status().term
    assert bridge.states == [State.LEADING, State.DRAINING, State.STOPPED]


async def test_a_standby_asks_feishu_whether_it_would_be_accepted_and_opens_nothing(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys, "a") as leader:
        await eventually(lambda: leader.connected)
        async with Bridge(real_redis, keys, "b") as standby:
            await eventually(lambda: standby.supervisor.status().leader == "a")
            assert len(standby.feishu.discoveries) == 1
            assert standby.feishu.connections == []
            assert standby.supervisor.state is State.STANDBY


async def test_a_stop_reads_no_more_acks_what_was_read_closes_and_then_hands_over(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys, "a") as leader, Bridge(real_redis, keys, "b") as standby:
        first, second = sorted((leader, standby), key=lambda bridge: not bridge.states)
        await eventually(lambda: leader.connected or standby.connected)
        first, second = (leader, standby) if leader.connected else (standby, leader)
        first.feishu.connection.push(envelope())
        started = time.monotonic()
        first.supervisor.stop()
        await first.task
        assert first.feishu.connection.steps == ["pause", "ack", "close", "gone"]
        await eventually(lambda: second.connected)
        assert time.monotonic() - started < 2.0
        assert await real_redis.hkeys(keys.bridges) == [second.elector.identity.encode()]


async def test_a_lost_lease_aborts_the_socket_before_anything_else(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        await real_redis.hset(keys.lease, mapping={"holder": "b", "lease_duration": 60_000})
        await eventually(lambda: bridge.supervisor.state is State.STANDBY)
        assert bridge.feishu.connection.steps[0] == "abort"
        await eventually(lambda: bridge.feishu.connection.steps == ["abort", "gone"])
        assert len(bridge.feishu.connections) == 1


async def test_a_fenced_event_is_not_acked_and_ends_the_leadership(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        connection = bridge.feishu.connection
        await real_redis.hset(keys.lease, mapping={"holder": "b", "term": 2**50})
        connection.push(envelope())
        await eventually(lambda: connection.steps == ["abort", "gone"])
        assert connection.acks == []
        assert bridge.supervisor.counters.outcomes == {"fenced": 1}


async def test_an_entry_of_an_earlier_term_is_fenced_without_ending_this_leadership(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        connection, make = bridge.feishu.connection, bridge.supervisor._reconnector._feed
        earlier = FeedReceiver(make(connection, bridge.elector.term - 1), Subscribers())
        before, connection.receiver = connection.receiver, earlier
        connection.push(envelope("e1"))
        await eventually(lambda: bridge.supervisor.counters.outcomes == {"fenced": 1})
        connection.receiver = before
        connection.push(envelope("e2"))
        await eventually(lambda: connection.acks == [200])
        assert connection.steps == ["ack"]


async def test_a_close_is_routine_and_followed_by_a_new_discovery(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        bridge.feishu.connection.end()
        await eventually(lambda: len(bridge.feishu.connections) == 2)
        assert bridge.states == [State.LEADING]
        assert bridge.feishu.discoveries[-1]["config"].reconnect_interval == 7


async def test_a_reconnect_while_an_attempt_is_under_way_is_that_attempt(
    real_redis: Redis, keys: Keys
) -> None:
    bridge = Bridge(real_redis, keys, attempts=Attempts(auto_reconnect=False))
    go, discover = asyncio.Event(), bridge.feishu.discover

    async def hold(**known: Any) -> Any:
        if bridge.feishu.discoveries:  # the first is no attempt to connect
            await go.wait()
        return await discover(**known)

    bridge.feishu.discover = hold  # type: ignore[method-assign]
    running = asyncio.create_task(bridge.supervisor.run())
    await eventually(lambda: bridge.supervisor.state is State.LEADING)
    await bridge.supervisor.reconnect()
    go.set()
    await eventually(lambda: bridge.connected)
    bridge.feishu.connection.end()
    with pytest.raises(ConnectionOver):
        await asyncio.wait_for(running, 5.0)


async def test_an_end_by_our_own_will_is_none_of_a_bridge_that_is_not_to_reconnect(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close(connection: Connection) -> None:
        connection.end("closed by us")
        for _ in range(20):  # so that who runs the connection notices before we go on
            await asyncio.sleep(0)

    monkeypatch.setattr(Connection, "close", close)
    async with Bridge(real_redis, keys, attempts=Attempts(auto_reconnect=False)) as bridge:
        await eventually(lambda: bridge.connected)
        await bridge.supervisor.reconnect()
        await eventually(lambda: len(bridge.feishu.connections) == 2 and bridge.connected)
        bridge.elector.fenced(bridge.elector.term + 1)
        await eventually(lambda: len(bridge.feishu.connections) == 3 and bridge.connected)
        bridge.supervisor.stop()
        await bridge.task


async def test_a_bridge_that_is_not_to_reconnect_publishes_what_it_has_read(
    real_redis: Redis, keys: Keys
) -> None:
    bridge = Bridge(real_redis, keys, attempts=Attempts(auto_reconnect=False))
    running = asyncio.create_task(bridge.supervisor.run())
    await eventually(lambda: bridge.connected)
    bridge.feishu.connection.push(envelope())
    bridge.feishu.connection.end()
    with pytest.raises(ConnectionOver):
        await asyncio.wait_for(running, 5.0)
    assert bridge.supervisor.counters.outcomes == {"published": 1}


async def test_failures_before_a_connection_that_lasts_do_not_count_later(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys, attempts=Attempts(most=3)) as bridge:
        for connections in (1, 2, 3):
            await eventually(lambda n=connections: len(bridge.feishu.connections) == n)
            await eventually(lambda: bridge.connected)
            bridge.feishu.trouble = [FeishuUnavailable("no network")] * 2
            bridge.feishu.connection.end()
        await eventually(lambda: len(bridge.feishu.connections) == 4)


async def test_a_stop_that_is_cancelled_twice_leaves_no_watchdog(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = asyncio.Event()

    async def never(publisher: object) -> None:
        closing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("flybridge.bridge.publishing.publisher.Publisher.close", never)
    bridge = Bridge(real_redis, keys)
    running = asyncio.create_task(bridge.supervisor.run())
    await eventually(lambda: bridge.connected)
    running.cancel()
    await closing.wait()
    running.cancel()
    await asyncio.wait({running})
    assert bridge.supervisor._watchdog._stopped.is_set()


async def test_wrong_configuration_at_the_start_ends_the_bridge_before_it_has_the_lease(
    real_redis: Redis, keys: Keys
) -> None:
    bridge = Bridge(real_redis, keys)
    bridge.feishu.trouble = [FeishuRefused("no such app; check FLYBRIDGE_APP_ID")]
    with pytest.raises(FeishuRefused, match="FLYBRIDGE_APP_ID"):
        await bridge.supervisor.run()
    assert not await real_redis.exists(keys.lease)


async def test_a_refusal_later_on_gives_the_lease_up_until_feishu_accepts_again(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        bridge.feishu.always = FeishuRefused("the app was disabled", 403)
        bridge.feishu.connection.end()
        await eventually(lambda: len(bridge.feishu.discoveries) > 5)
        status = bridge.supervisor.status()
        assert (status.degraded, status.trouble) == (True, "the app was disabled")
        assert status.credentials is Standing.REFUSED
        assert bridge.feishu.discoveries[5]["refusals"] == 3
        assert await real_redis.hget(keys.lease, "holder") == b""
        assert status.redis_age is not None
        assert status.redis_age < FAST.lease_duration, "it goes on looking who leads"
        bridge.feishu.always = None
        await eventually(lambda: bridge.connected)
        assert not bridge.supervisor.status().degraded
    assert bridge.states[:3] == [State.LEADING, State.STANDBY, State.LEADING]


async def test_a_leader_that_is_refused_leaves_the_lease_to_one_that_is_accepted(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys, "a") as refused:
        await eventually(lambda: refused.connected)
        refused.feishu.always = FeishuBusy("an unknown refusal", 99)
        async with Bridge(real_redis, keys, "b") as accepted:
            refused.feishu.connection.end()
            await eventually(lambda: accepted.connected)
            asked = len(refused.feishu.discoveries)
            await eventually(lambda: len(refused.feishu.discoveries) > asked + 3)
            assert refused.states == [State.LEADING, State.STANDBY]
            assert accepted.states == [State.LEADING]
            assert "an unknown refusal" in refused.supervisor.trouble


async def test_a_standby_that_is_refused_never_takes_a_free_lease(
    real_redis: Redis, keys: Keys
) -> None:
    async with Bridge(real_redis, keys, "a") as leader:
        await eventually(lambda: leader.connected)
        async with Bridge(real_redis, keys, "b", replace(PACE, check=0.01)) as standby:
            await eventually(lambda: standby.feishu.discoveries)
            standby.feishu.always = FeishuRefused("the secret was changed")
            await eventually(lambda: standby.supervisor.status().degraded)
            assert "the secret was changed" in standby.supervisor.status().trouble
            leader.supervisor.stop()
            await leader.task
            asked = len(standby.feishu.discoveries)
            await eventually(lambda: len(standby.feishu.discoveries) > asked + 5)
            assert standby.states == []
            standby.feishu.always = None
            await eventually(lambda: standby.connected)


async def test_a_network_that_does_not_answer_is_no_refusal(real_redis: Redis, keys: Keys) -> None:
    async with Bridge(real_redis, keys, "a") as leader:
        await eventually(lambda: leader.connected)
        standby = Bridge(real_redis, keys, "b", replace(PACE, busy_retry=60.0))
        standby.feishu.trouble = [FeishuUnavailable("no network")]
        async with standby:
            await eventually(lambda: standby.supervisor.status().leader == "a")
            status = standby.supervisor.status()
            assert (status.credentials, status.trouble) == (Standing.UNKNOWN, "no network")
            assert status.unreached > 0
            leader.supervisor.stop()
            await eventually(lambda: standby.connected)


async def test_patience_cuts_attempts_and_pauses_short(real_redis: Redis, keys: Keys) -> None:
    backoff = Backoff(lambda: 1.0, first=100.0)
    bridge = Bridge(real_redis, keys, pace=replace(PACE, patience=0.3), backoff=backoff)
    hung = asyncio.Event()

    async def hang(**known: Any) -> Any:
        bridge.feishu.discoveries.append(known)
        if len(bridge.feishu.discoveries) == 2:
            raise FeishuUnavailable("no network")
        if len(bridge.feishu.discoveries) > 2:
            hung.set()
            await asyncio.Event().wait()
        return SimpleNamespace(config=ClientConfig(), device_id="d")

    bridge.feishu.discover = hang  # type: ignore[method-assign]
    async with bridge:
        for _ in ("a pause of 100 s", "a discovery without end"):
            await eventually(lambda: bridge.supervisor.state is State.LEADING)
            began = time.monotonic()
            await eventually(lambda: bridge.supervisor.state is State.STANDBY)
            assert 0.2 < time.monotonic() - began < 0.6
        assert hung.is_set()


class TestASessionThatIsRefused:
    """As by a gateway that does not like our token: discovery says nothing of that."""

    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
        refused = [True]
        run = Connection.run

        async def refusing(connection: Connection, receiver: Any) -> Closed:
            if refused[0]:
                raise FeishuRefused("the server answers auth with 5; check FLYBRIDGE_TEXT_TOKEN", 5)
            return await run(connection, receiver)

        monkeypatch.setattr(Connection, "run", refusing)
        return refused

    async def test_at_the_start_it_ends_the_bridge(
        self, real_redis: Redis, keys: Keys, refused: list[bool]
    ) -> None:
        bridge = Bridge(real_redis, keys, pace=replace(PACE, steady=10.0))
        with pytest.raises(FeishuRefused, match="FLYBRIDGE_TEXT_TOKEN"):
            await asyncio.wait_for(bridge.supervisor.run(), 3.0)
        assert await real_redis.hget(keys.lease, "holder") == b""

    async def test_later_it_is_tried_again_slowly(
        self, real_redis: Redis, keys: Keys, refused: list[bool]
    ) -> None:
        refused[0] = False
        async with Bridge(real_redis, keys) as bridge:
            await eventually(lambda: bridge.connected)
            refused[0] = True
            bridge.feishu.connection.end()
            await eventually(lambda: bridge.states[-1] is State.STANDBY)
            refused[0] = False
            await eventually(lambda: bridge.connected)


async def test_a_crowded_feishu_keeps_the_lease_however_long_it_takes(
    real_redis: Redis, keys: Keys
) -> None:
    bridge = Bridge(real_redis, keys)
    bridge.feishu.always = FeishuCrowded("too many connections")
    async with bridge:
        await eventually(lambda: bridge.supervisor.status().offline > 2 * PACE.patience)
        assert bridge.states == [State.LEADING]


async def test_a_leader_that_cannot_connect_lets_another_host_try(
    real_redis: Redis, keys: Keys
) -> None:
    cut_off = Bridge(real_redis, keys, "a")
    cut_off.feishu.always = FeishuUnavailable("no network")
    async with cut_off:
        await eventually(lambda: cut_off.supervisor.state is State.LEADING)
        async with Bridge(real_redis, keys, "b") as other:
            await eventually(lambda: other.connected)
            assert cut_off.states == [State.LEADING, State.STANDBY]


async def test_a_full_redis_takes_nothing_in_until_it_has_room_again(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MemoryWatch.__init__.__kwdefaults__, "period", 0.01)
    lifecycle, told = Subscribers(), []
    lifecycle.subscribe(Errored, lambda errored: told.append(type(errored.error)))
    try:
        async with Bridge(real_redis, keys, lifecycle=lifecycle) as bridge:
            await eventually(lambda: bridge.connected)
            used = (await real_redis.info("memory"))["used_memory"]
            await real_redis.config_set("maxmemory", int(used / 0.9))
            await eventually(lambda: bridge.supervisor.status().full)
            bridge.feishu.connection.push(envelope("e1"))
            bridge.feishu.connection.push(b"no envelope")
            assert bridge.feishu.connection.acks == [500, 500]
            assert bridge.supervisor.counters.outcomes == {"full": 2}
            assert bridge.supervisor.status().memory_limit == int(used / 0.9)
            await real_redis.config_set("maxmemory", 2 * used)
            await eventually(lambda: not bridge.supervisor.status().full)
            bridge.feishu.connection.push(envelope("e1"))
            await eventually(lambda: bridge.feishu.connection.acks == [500, 500, 200])
            assert told == [RedisUnfit]
    finally:
        await real_redis.config_set("maxmemory", 0)


async def test_a_standby_does_not_go_on_calling_redis_full(real_redis: Redis, keys: Keys) -> None:
    try:
        async with Bridge(real_redis, keys) as bridge:
            await eventually(lambda: bridge.connected)
            await real_redis.config_set("maxmemory", 1)
            bridge.feishu.connection.push(envelope("e1"))
            await eventually(lambda: bridge.supervisor.status().full, within=1.0)
            await real_redis.config_set("maxmemory", 0)
            await real_redis.hset(keys.lease, mapping={"holder": "b", "lease_duration": 60_000})
            await eventually(lambda: bridge.supervisor.state is State.STANDBY)
            await eventually(lambda: not bridge.supervisor.status().full)
    finally:
        await real_redis.config_set("maxmemory", 0)


async def test_a_publish_that_redis_has_no_room_for_stops_the_intake_at_once(
    real_redis: Redis, keys: Keys
) -> None:
    try:
        async with Bridge(real_redis, keys) as bridge:
            await eventually(lambda: bridge.connected)
            await real_redis.config_set("maxmemory", 1)
            bridge.feishu.connection.push(envelope("e1"))
            await eventually(lambda: bridge.feishu.connection.acks == [500], within=1.0)
            assert bridge.supervisor.status().full
            assert bridge.states == [State.LEADING]
    finally:
        await real_redis.config_set("maxmemory", 0)


def names_of_tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_a_lease_lost_while_draining_does_not_make_it_a_standby_again(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        drained = asyncio.Event()

        async def drain(timeout: float) -> None:
            bridge.elector.fenced(bridge.elector.term + 1)
            await eventually(lambda: "supervisor" not in names_of_tasks())
            drained.set()

        monkeypatch.setattr(bridge.supervisor._reconnector, "drain", drain)
        bridge.supervisor.stop()
        await drained.wait()
    assert bridge.states == [State.LEADING, State.DRAINING, State.STOPPED]


async def test_the_board_goes_by_the_clock_of_redis_and_not_by_those_of_the_hosts(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, _ = await real_redis.time()
    for name, ago in {"other": 1, "killed": 61, "of a clock that was ahead": -7_200}.items():
        await real_redis.hset(keys.bridges, name, b'{"at": %d}' % ((seconds - ago) * 1000))
    monkeypatch.setattr(
        "flybridge.bridge.node.self_report.now_ms", lambda: (seconds + 7_200) * 1000
    )
    async with Bridge(real_redis, keys):
        wanted = {b"a", b"other"}
        async with asyncio.timeout(3):
            while set(rows := await real_redis.hgetall(keys.bridges)) != wanted:
                continue
        assert abs(msgspec.json.decode(rows[b"a"])["at"] / 1000 - seconds) < 5


async def test_the_board_shows_the_bridge_and_forgets_the_killed(
    real_redis: Redis, keys: Keys
) -> None:
    await real_redis.hset(keys.bridges, "killed", b'{"at": 1}')
    await real_redis.hset(keys.bridges, "nonsense", b"\xff")
    async with Bridge(real_redis, keys) as bridge:
        await eventually(lambda: bridge.connected)
        bridge.feishu.connection.pong()
        rows: dict[bytes, bytes] = {}
        async with asyncio.timeout(3):
            while set(rows) != {b"a"} or not msgspec.json.decode(rows[b"a"])["connected_for"]:
                rows = await real_redis.hgetall(keys.bridges)
        shown = msgspec.json.decode(rows[b"a"])
        assert (shown["state"], shown["identity"]) == ("leading", "a")
        assert abs(shown["at"] - time.time() * 1000) < 5_000
        status = bridge.supervisor.status()
        assert status.pong_seen
        assert status.pong_age is not None
        assert len(shown["ack_counts"]) == len(shown["ack_bounds"]) + 1
    assert await real_redis.exists(keys.bridges) == 0


async def test_a_stop_takes_less_than_two_seconds_when_neither_redis_nor_feishu_answers(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unanswered(connection: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            connection.end("aborted")

    monkeypatch.setattr(Connection, "close", unanswered)
    with EmbeddedRedis() as server:
        client = async_client(server.url)
        async with Bridge(client, keys) as bridge:
            await eventually(lambda: bridge.connected)
            os.kill(server.pid, signal.SIGSTOP)
            bridge.feishu.connection.push(envelope())
            started = time.monotonic()
            bridge.supervisor.stop()
            await bridge.task
            assert time.monotonic() - started < 2.0
        os.kill(server.pid, signal.SIGCONT)
        await client.aclose()


async def test_a_background_task_that_ends_by_a_mistake_ends_the_bridge_in_order(
    real_redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistake(*arguments: object) -> None:
        raise KeyError("a mistake of ours")

    places = {
        "trimmer": "flybridge.bridge.housekeeping.trimming.Trimmer.run",
        "memory-watch": "flybridge.bridge.housekeeping.memory.MemoryWatch.run",
        "status-board": "flybridge.bridge.ops.status.Board.run",
        "lease-keeper": "flybridge.bridge.leadership.lease.LeaseElector._keep",
        "publisher": "flybridge.bridge.publishing.publisher.Publisher._send",
    }
    for name, place in places.items():
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(place, mistake)
            bridge = Bridge(real_redis, keys, name)
            running = asyncio.create_task(bridge.supervisor.run())
            if name == "publisher":
                await eventually(lambda each=bridge: each.connected)
                bridge.feishu.connection.push(envelope())
            with pytest.raises(TaskFailed, match=name) as failed:
                await asyncio.wait_for(running, 5.0)
        assert failed.value.exit_code == EXIT_TASK
        assert bridge.states[-1] is State.STOPPED
        assert await real_redis.hget(keys.lease, "holder") == b"", name
        (line,) = (line for line in logs if line["event"] == "task.failed")
        assert "KeyError: 'a mistake of ours'" in line["exception"]
