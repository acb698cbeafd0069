from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from flybridge.bridge.errors import FeishuRefused, NotConnected
from flybridge.bridge.feishu import connection
from flybridge.bridge.feishu.connection import Closed, Connection, connect
from flybridge.bridge.feishu.discovery import Endpoint
from flybridge.bridge.protocol import frames
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.heartbeat import Heartbeat, Pulse
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.bridge.protocol.text_conversation import TextDialect
from tests.bridge.stand_ins import Receiver

PATIENCE = 5.0


def push(payload: bytes = b"{}", **headers: str) -> bytes:
    all_headers = {"type": "event", "message_id": "m", "sum": "1", "seq": "0", **headers}
    frame = frames.new(service=1, method=frames.DATA, headers=all_headers, payload=payload)
    return frames.encode(frame)


def pong(payload: bytes = b"") -> bytes:
    frame = frames.new(service=1, method=frames.CONTROL, headers={"type": "pong"}, payload=payload)
    return frames.encode(frame)


class Feishu:
    """A server whose side of the conversation each test writes as `talk`."""

    def __init__(self) -> None:
        self.port = 0
        self.talk: Callable[[ServerConnection], Awaitable[None]] = self.listen
        self.received: asyncio.Queue[frames.Frame] = asyncio.Queue()
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self.writes = 0
        self.lost = asyncio.Event()

    @property
    def endpoint(self) -> Endpoint:
        url = f"ws://127.0.0.1:{self.port}/ws/v2?service_id=1&ticket=a-ticket"
        return Endpoint(url, 1, "device", ClientConfig())

    async def listen(self, websocket: ServerConnection) -> None:
        async for data in websocket:
            if isinstance(data, str):
                self.texts.put_nowait(data)
            else:
                self.received.put_nowait(frames.decode(data))

    async def handle(self, websocket: ServerConnection) -> None:
        try:
            await self.talk(websocket)
        except ConnectionClosed:
            pass
        finally:
            self.lost.set()

    async def next(self) -> frames.Frame:
        async with asyncio.timeout(PATIENCE):
            return await self.received.get()

    async def next_text(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return str(json.loads(await self.texts.get())["type"])


@pytest.fixture
async def feishu(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feishu]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = Feishu()
    async with serve(server.handle, "127.0.0.1", 0, close_timeout=0.2) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server


class Bridge:
    """The other side: what it was handed, and how it ended."""

    def __init__(self, opened: Connection) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.rejected: asyncio.Queue[Rejected] = asyncio.Queue()
        self.pulses: asyncio.Queue[Pulse] = asyncio.Queue()
        self.on_delivery, self.on_rejected = self.deliveries.put_nowait, self.rejected.put_nowait
        self.on_pulse, self.on_text = self.pulses.put_nowait, Receiver().on_text
        self.connection = opened
        self.ending = asyncio.create_task(opened.run(self))

    async def next(self) -> Delivery:
        async with asyncio.timeout(PATIENCE):
            return await self.deliveries.get()

    async def closed(self) -> Closed:
        async with asyncio.timeout(PATIENCE):
            return await self.ending


@contextlib.asynccontextmanager
async def bridging(feishu: Feishu, **options: Any) -> AsyncIterator[Bridge]:
    async with connect(feishu.endpoint, **options) as opened:
        bridge = Bridge(opened)
        yield bridge
    await bridge.closed()


async def test_the_first_thing_said_is_a_ping(feishu: Feishu) -> None:
    async with bridging(feishu):
        ping = await feishu.next()
    assert (ping.method, ping.service) == (frames.CONTROL, 1)
    assert frames.headers(ping) == {"type": "ping"}


async def test_a_push_is_delivered_and_its_ack_goes_back(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.send(push(b'{"a":1}', trace_id="t"))
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        delivery = await bridge.next()
        bridge.connection.ack(delivery, 200)
        await feishu.next()
        ack = await feishu.next()
    assert (delivery.payload, delivery.trace_id) == (b'{"a":1}', "t")
    assert ack.payload == b'{"code":200}'
    assert frames.headers(ack)["trace_id"] == "t"
    assert "biz_rt" in frames.headers(ack)


async def test_the_acks_of_one_turn_leave_in_one_write(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(websocket: ServerConnection) -> None:
        for number in range(50):
            await websocket.send(push(b"%d" % number))
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        await feishu.next()
        deliveries = [await bridge.next() for _ in range(50)]
        writes: list[int] = []
        transport = bridge.connection._transport
        write = transport.write
        monkeypatch.setattr(
            transport, "write", lambda data: (writes.append(len(data)), write(data))
        )
        for delivery in deliveries:
            bridge.connection.ack(delivery, 200)
        assert writes == []
        for _ in range(50):
            assert (await feishu.next()).payload == b'{"code":200}'
        assert len(writes) == 1


async def test_rejected_frames_are_handed_over_and_a_text_is_only_counted(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.send("text")
        await websocket.send(b"\xff no frame")
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        async with asyncio.timeout(PATIENCE):
            found = await bridge.rejected.get()
        assert (found.reason, found.payload) == ("invalid", b"\xff no frame")
        assert bridge.connection.conversation.counts == {"text": 1, "invalid": 1}
        assert bridge.deliveries.empty()


async def test_a_message_in_many_websocket_fragments_is_one_frame(feishu: Feishu) -> None:
    whole = push(b"x" * 100_000)

    async def talk(websocket: ServerConnection) -> None:
        await websocket.send([whole[at : at + 7000] for at in range(0, len(whole), 7000)])
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        assert (await bridge.next()).payload == b"x" * 100_000


# Ends


async def test_a_goodbye_of_feishu_is_told(feishu: Feishu) -> None:
    feishu.talk = lambda websocket: websocket.close(1000, "bye")
    async with bridging(feishu) as bridge:
        assert await bridge.closed() == Closed("closed by Feishu 1000 bye", 1000)


async def test_an_end_without_goodbye_is_told(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        websocket.transport.abort()

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        closed = await bridge.closed()
    assert closed.code == 1006
    assert closed.reason.startswith("lost without a goodbye")


async def test_a_frame_above_the_limit_ends_the_connection(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 1000)
    feishu.talk = lambda websocket: websocket.send(push(b"x" * 2000))
    async with bridging(feishu) as bridge:
        closed = await bridge.closed()
    assert closed.code == 1009
    assert closed.reason.startswith("closed by us 1009")


async def test_a_half_open_connection_is_noticed(feishu: Feishu) -> None:
    async with bridging(feishu, pong_timeout=0.05) as bridge:
        assert await bridge.closed() == Closed("no frame within 0.05 s after ping", 1006)


async def test_a_pong_keeps_the_connection_alive_and_sets_the_next_ping(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        async for data in websocket:
            assert isinstance(data, bytes)
            feishu.received.put_nowait(frames.decode(data))
            await websocket.send(pong(b'{"PingInterval":1}'))

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        await feishu.next()
        await feishu.next()  # a second later, and not two minutes
        assert bridge.connection.conversation.config.ping_interval == 1
        assert not bridge.ending.done()
        assert bridge.connection.conversation.heartbeat.total == 1


async def test_a_stall_of_our_own_loop_is_no_silence_of_feishu(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.recv()
        await websocket.send(pong())
        time.sleep(0.3)  # noqa: ASYNC251 (the loop is the bridge's too; the pong lies in its socket)
        await websocket.send(push())
        await websocket.wait_closed()

    feishu.talk = talk
    async with bridging(feishu, pong_timeout=0.1) as bridge:
        await bridge.next()
        assert bridge.connection.conversation.last_pong is not None


async def test_close_sends_the_last_acks_and_says_goodbye(feishu: Feishu) -> None:
    goodbye: list[int | None] = []

    async def talk(websocket: ServerConnection) -> None:
        await websocket.send(push())
        await feishu.listen(websocket)
        goodbye.append(websocket.close_code)

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        bridge.connection.ack(await bridge.next(), 200)
        await bridge.connection.close()
        assert await bridge.closed() == Closed("closed by us", 1000)
        await feishu.next()
        assert (await feishu.next()).payload == b'{"code":200}'
        await feishu.lost.wait()
    assert goodbye == [1000]


async def test_close_does_not_wait_for_a_server_that_says_nothing(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.05)

    async def talk(websocket: ServerConnection) -> None:
        websocket.transport.pause_reading()
        await websocket.wait_closed()

    feishu.talk = talk
    async with bridging(feishu) as bridge:
        async with asyncio.timeout(1):
            await bridge.connection.close()
        assert (await bridge.closed()).reason == "closed by us"


async def test_abort_drops_the_connection_without_a_goodbye(feishu: Feishu) -> None:
    async with bridging(feishu) as bridge:
        await feishu.next()
        bridge.connection.abort()
        assert await bridge.closed() == Closed("aborted by us", 1006)
        async with asyncio.timeout(PATIENCE):
            await feishu.lost.wait()


async def test_an_ack_after_the_end_is_forgotten(feishu: Feishu) -> None:
    feishu.talk = lambda websocket: websocket.send(push())
    async with bridging(feishu) as bridge:
        delivery = await bridge.next()
        await bridge.closed()
        bridge.connection.ack(delivery, 200)
        await bridge.connection.close()


async def test_nothing_is_delivered_after_abort(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        async with asyncio.timeout(PATIENCE):
            for number in range(2000):
                await websocket.send(push(b"%d" % number))

    feishu.talk = talk
    seen: list[Delivery] = []

    class Stopping(Receiver):
        def on_delivery(self, delivery: Delivery) -> None:
            seen.append(delivery)
            opened.abort()

    async with connect(feishu.endpoint) as opened, asyncio.timeout(PATIENCE):
        await opened.run(Stopping())
    assert len(seen) == 1


async def test_what_a_callback_raises_comes_out_of_run(feishu: Feishu) -> None:
    feishu.talk = lambda websocket: websocket.send(push())

    class Broken(Receiver):
        def on_delivery(self, delivery: Delivery) -> None:
            raise RuntimeError("broken")

    async with connect(feishu.endpoint) as opened:
        with pytest.raises(RuntimeError, match="broken"):
            await opened.run(Broken())


# Back-pressure


async def test_once_paused_nothing_is_read_and_silence_is_no_death(feishu: Feishu) -> None:
    paused = asyncio.Event()

    async def talk(websocket: ServerConnection) -> None:
        feishu.received.put_nowait(frames.decode(await websocket.recv(decode=False)))
        await paused.wait()
        await websocket.send(push(b"unread"))
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu, pong_timeout=0.1) as bridge:
        await feishu.next()
        bridge.connection.pause()
        paused.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await bridge.deliveries.get()
        assert not bridge.ending.done()


async def test_a_server_that_takes_no_acks_is_read_no_further_and_given_up(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WRITE_LIMIT", 65536)
    monkeypatch.setattr(connection, "WRITE_TIMEOUT", 0.2)

    async def talk(websocket: ServerConnection) -> None:
        websocket.transport.pause_reading()
        while True:
            await websocket.send(push(instance_id="x" * 60_000))

    feishu.talk = talk

    class Acking(Receiver):
        def on_delivery(self, delivery: Delivery) -> None:
            opened.ack(delivery, 200)

    async with connect(feishu.endpoint) as opened, asyncio.timeout(PATIENCE * 4):
        closed = await opened.run(Acking())
    assert closed.reason == "no byte taken within 0.2 s"


# The heartbeat of a link


async def test_the_heartbeat_goes_on_with_the_next_connection(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.recv()
        await websocket.send(pong())
        await websocket.send(push())
        await feishu.listen(websocket)

    feishu.talk = talk
    heartbeat = Heartbeat()
    for total in (1, 2):
        async with bridging(feishu, heartbeat=heartbeat) as bridge:
            await bridge.next()
            assert bridge.connection.conversation.heartbeat is heartbeat
            assert heartbeat.total == total
        assert heartbeat.next_check() == float("inf"), "an ended connection is not silent"


# What the manager does with it


async def test_what_is_sent_leaves_after_the_acks_before_it_and_as_it_is(feishu: Feishu) -> None:
    feishu.talk = one_push(feishu)
    async with bridging(feishu) as bridge:
        await feishu.next()  # the ping
        bridge.connection.ack(await bridge.next(), 200)
        await bridge.connection.send(pong(b"mine"))
        assert frames.headers(await feishu.next())["type"] == "event"
        assert (await feishu.next()).payload == b"mine"
        await bridge.connection.send("text")
        async with asyncio.timeout(PATIENCE):
            assert await feishu.texts.get() == "text"


async def test_nothing_can_be_sent_once_the_end_has_begun(feishu: Feishu) -> None:
    async with bridging(feishu) as bridge:
        assert bridge.connection.is_open
        bridge.connection.abort()
        assert not bridge.connection.is_open
        with pytest.raises(NotConnected):
            await bridge.connection.send(b"")
        assert bridge.connection.ended == Closed("aborted by us", 1006)


async def test_who_waits_to_send_is_told_of_the_end(feishu: Feishu) -> None:
    ended = asyncio.Event()

    async def deaf(websocket: ServerConnection) -> None:
        websocket.transport.pause_reading()
        await ended.wait()

    feishu.talk = deaf
    async with bridging(feishu) as bridge:
        sending = asyncio.create_task(send_for_ever(bridge.connection))
        async with asyncio.timeout(PATIENCE):
            while not bridge.connection._websocket.paused:  # noqa: ASYNC110
                await asyncio.sleep(0)
        bridge.connection.abort()
        with pytest.raises(NotConnected):
            await asyncio.wait_for(sending, PATIENCE)
        ended.set()


async def test_half_a_character_is_refused_and_the_acks_go_out(feishu: Feishu) -> None:
    feishu.talk = one_push(feishu)
    async with bridging(feishu) as bridge:
        await feishu.next()
        bridge.connection.ack(await bridge.next(), 200)
        with pytest.raises(UnicodeEncodeError):
            await bridge.connection.send("\ud800")
        assert frames.headers(await feishu.next())["type"] == "event"


async def test_each_pong_is_handed_over(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.recv()
        await websocket.send(pong())
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu) as bridge, asyncio.timeout(PATIENCE):
        pulse = await bridge.pulses.get()
    assert pulse.status == "steady"
    assert pulse.round_trip is not None


@pytest.mark.parametrize(("size", "calls"), [(0, 0), (4096, 0), (262_143, 0), (262_144, 1)])
async def test_the_receive_buffer_is_the_systems_or_as_large_as_asked_for_but_never_small(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch, size: int, calls: int
) -> None:
    asked: list[int] = []

    def note(raw: TransportSocket, level: int, option: int, value: int) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
            asked.append(value)

    monkeypatch.setattr(TransportSocket, "setsockopt", note)
    async with bridging(feishu, receive_buffer_size=size):
        assert asked == [size] * calls


async def test_a_connection_that_has_ended_before_its_buffer_is_set_is_an_end_like_others(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_websocket = connection.open_websocket

    async def lost(*arguments: Any, **options: Any) -> Any:
        websocket = await open_websocket(*arguments, **options)
        websocket.transport.abort()
        await websocket.wait_closed()
        return websocket

    monkeypatch.setattr(connection, "open_websocket", lost)
    async with connect(feishu.endpoint, receive_buffer_size=262_144) as opened:
        assert (await opened.run(Receiver())).code == 1006


def one_push(feishu: Feishu) -> Callable[[ServerConnection], Awaitable[None]]:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.send(push())
        await feishu.listen(websocket)

    return talk


async def send_for_ever(connection: Connection) -> None:
    while True:
        await connection.send(b"x" * 1_000_000)


# The text dialect


async def test_a_server_of_text_is_greeted_in_text_and_its_ping_answered(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"ping","timestamp":1}')
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu, text_dialect=TextDialect()):
        assert [await feishu.next_text(), await feishu.next_text()] == ["ping", "pong"]
        assert frames.headers(await feishu.next())["type"] == "ping"


async def test_an_event_in_text_is_delivered_and_nothing_is_said_for_an_ack(
    feishu: Feishu,
) -> None:
    async def talk(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"event","data":{"event_id":"e","event_type":"t"}}')
        await feishu.listen(websocket)

    feishu.talk = talk
    async with bridging(feishu, text_dialect=TextDialect()) as bridge:
        delivery = await bridge.next()
        bridge.connection.ack(delivery, 200)
        await bridge.connection.close()
        async with asyncio.timeout(PATIENCE):
            await feishu.lost.wait()
    assert json.loads(delivery.payload)["header"]["event_id"] == "e"
    assert await feishu.next_text() == "ping"
    assert (feishu.texts.qsize(), feishu.received.qsize()) == (0, 1)


async def test_text_that_is_no_message_is_handed_over_to_be_buried(feishu: Feishu) -> None:
    feishu.talk = lambda websocket: websocket.send("no JSON")
    async with bridging(feishu, text_dialect=TextDialect()) as bridge, asyncio.timeout(PATIENCE):
        found = await bridge.rejected.get()
    assert (found.reason, found.payload) == ("invalid", b"no JSON")


async def test_a_refused_token_comes_out_of_run_with_a_sentence(feishu: Feishu) -> None:
    async def talk(websocket: ServerConnection) -> None:
        assert json.loads(await websocket.recv())["data"] == {"app_access_token": "t-secret"}
        await websocket.send('{"type":"auth","code":7,"msg":"expired"}')
        await feishu.listen(websocket)

    feishu.talk = talk
    heartbeat = Heartbeat()
    dialect = TextDialect(token="t-secret")
    async with connect(feishu.endpoint, text_dialect=dialect, heartbeat=heartbeat) as opened:
        with pytest.raises(FeishuRefused, match="7 'expired'; check FLYBRIDGE_TEXT_TOKEN"):
            await opened.run(Receiver())
    assert heartbeat.next_check() == float("inf")


async def test_a_half_open_server_of_text_is_noticed(feishu: Feishu) -> None:
    async with bridging(feishu, text_dialect=TextDialect(), pong_timeout=0.05) as bridge:
        assert (await bridge.closed()).reason == "no frame within 0.05 s after ping"
