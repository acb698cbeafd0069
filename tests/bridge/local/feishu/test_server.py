from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.protocol import frames
from flybridge.handlers.samples import sample
from tests.waiting import eventually


def ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


FAST = 1000.0  # the first rung takes 15 ms, the whole ladder 25 s
TYPE = "im.message.receive_v1"


async def test_an_event_arrives_as_one_frame_and_is_acked(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        envelope = sample(TYPE)
        push = feishu.push(envelope)
        frame = await client.receive()
        headers = frames.headers(frame)

        assert (headers["type"], headers["sum"], headers["seq"]) == ("event", "1", "0")
        assert headers["trace_id"] == envelope["header"]["event_id"] == push.event_id
        assert json.loads(frame.payload) == envelope
        await client.ack(frame)
        assert await push.wait(5)
        assert (push.attempts[0].code, push.attempts[0].biz_rt) == (200, "3")


async def test_bytes_are_pushed_as_they_are(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        feishu.push(b"\xff not json", kind="card")
        frame = await client.receive()
        assert frame.payload == b"\xff not json"
        assert frames.headers(frame)["type"] == "card"


async def test_a_large_event_comes_in_pieces_of_61440_bytes(connected: Any) -> None:
    payload = b"x" * 200_000
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        feishu.push(payload)
        pieces = [await client.receive() for _ in range(4)]

    headers = [frames.headers(piece) for piece in pieces]
    assert [len(piece.payload) for piece in pieces] == [61_440, 61_440, 61_440, 15_680]
    assert [(each["sum"], each["seq"]) for each in headers] == [("4", str(n)) for n in range(4)]
    assert len({each["message_id"] for each in headers}) == 1
    assert b"".join(piece.payload for piece in pieces) == payload


async def test_a_refused_event_is_pushed_again_under_a_new_message_id(connected: Any) -> None:
    async with LocalFeishu(clock_scale=FAST) as feishu, connected(feishu.url) as client:
        push = feishu.push(sample(TYPE))
        first = await client.receive()
        first_id = frames.headers(first)["message_id"]
        await client.ack(first, 500)
        second = await client.receive()
        await client.ack(second)

        assert await push.wait(5)
        assert frames.headers(second)["message_id"] != first_id
        assert frames.headers(second)["trace_id"] == push.event_id
        assert [attempt.code for attempt in push.attempts] == [500, 200]
        assert feishu.stats["repushed"] == 1


async def test_silence_is_a_failure_after_the_ack_timeout(connected: Any) -> None:
    async with (
        LocalFeishu(clock_scale=FAST, ack_timeout=0.05) as feishu,
        connected(feishu.url) as client,
    ):
        push = feishu.push(sample(TYPE))
        await client.receive()
        await client.ack(await client.receive())
        assert await push.wait(5)
        assert [attempt.ending for attempt in push.attempts] == ["timed_out", "acked"]


async def test_an_event_is_given_up_at_the_end_of_the_ladder(connected: Any) -> None:
    async with LocalFeishu(clock_scale=1e6) as feishu, connected(feishu.url) as client:
        push = feishu.push(sample(TYPE))
        for _ in range(5):
            await client.ack(await client.receive(), 500)
        assert await push.wait(5) is False
        assert push.state == "given_up"


async def test_events_pushed_while_nobody_is_connected_come_with_the_connection(
    connected: Any,
) -> None:
    async with LocalFeishu() as feishu:
        push = feishu.push(sample(TYPE))
        await eventually(lambda: len(push.attempts) == 1)
        async with connected(feishu.url) as client:
            await client.ack(await client.receive())
            assert await push.wait(5)
    assert [attempt.ending for attempt in push.attempts] == ["unreachable", "acked"]


async def test_pushing_on_connect_can_be_switched_off(connected: Any) -> None:
    async with LocalFeishu(push_on_connect=False) as feishu:
        push = feishu.push(sample(TYPE))
        await eventually(lambda: len(push.attempts) == 1)
        async with connected(feishu.url) as client:
            await client.ping()
            pong = await client.receive()
    assert pong.method == frames.CONTROL, "the owed event waits for its 15 s"


async def test_what_was_in_flight_on_a_cut_connection_comes_again_on_the_next(
    connected: Any,
) -> None:
    async with LocalFeishu() as feishu:
        async with connected(feishu.url) as client:
            push = feishu.push(sample(TYPE))
            await client.receive()
            feishu.faults.cut()
            with pytest.raises(ConnectionClosed):
                await client.receive()
        async with connected(feishu.url) as client:
            await client.ack(await client.receive())
            assert await push.wait(5)
    assert [attempt.ending for attempt in push.attempts] == ["cut", "acked"]


async def test_each_event_goes_to_one_of_the_connections(connected: Any) -> None:
    async with (
        LocalFeishu() as feishu,
        connected(feishu.url) as first,
        connected(feishu.url) as second,
    ):
        readers = [asyncio.create_task(each.ack_all()) for each in (first, second)]
        await eventually(lambda: len(feishu.connections) == 2)
        for _ in range(100):
            feishu.push(sample(TYPE))
        await eventually(lambda: feishu.stats["acked"] == 100)
        shares = [each.pushes for each in feishu.connections.values()]
        for reader in readers:
            reader.cancel()
    assert sum(shares) == 100, "no broadcast"
    assert min(shares) > 10, "no favourite"


async def test_pongs_carry_the_client_config(connected: Any) -> None:
    async with (
        LocalFeishu(config={"PingInterval": 7}) as feishu,
        connected(feishu.url) as client,
    ):
        feishu.faults.config(ReconnectCount=3)
        await client.ping()
        config = json.loads((await client.receive()).payload)
    assert (config["PingInterval"], config["ReconnectCount"]) == (7, 3)
    assert config["ReconnectNonce"] == 30


async def test_a_used_ticket_fails_the_upgrade_with_handshake_headers(discover: Any) -> None:
    async with LocalFeishu() as feishu:
        url = (await discover(feishu.url))[1]["data"]["URL"]
        async with connect(url):
            pass
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
    response = refused.value.response
    assert response.status_code == 514
    assert response.headers["Handshake-Status"] == "514"
    assert response.headers["Handshake-Autherrcode"] == "1"
    assert "used" in response.headers["Handshake-Msg"]


async def test_one_connection_more_than_allowed_is_refused(discover: Any, connected: Any) -> None:
    async with LocalFeishu(max_connections=1) as feishu, connected(feishu.url):
        assert (await discover(feishu.url))[1]["code"] == 1000040350


async def test_discovery_and_upgrade_can_be_made_to_fail(discover: Any) -> None:
    async with LocalFeishu() as feishu:
        feishu.faults.refuse_discovery(code=1000040343, msg="internal error", times=1)
        assert (await discover(feishu.url))[1] == {"code": 1000040343, "msg": "internal error"}
        feishu.faults.refuse_discovery(status=502, times=1)
        assert (await discover(feishu.url))[0] == 502
        feishu.faults.refuse_upgrade(status=403, times=1)
        url = (await discover(feishu.url))[1]["data"]["URL"]
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.headers["Handshake-Status"] == "403"
        assert "Handshake-Autherrcode" not in refused.value.response.headers


async def test_a_clean_close_says_bye(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        await client.ping()
        await client.receive()
        feishu.faults.close()
        with pytest.raises(ConnectionClosed) as closed:
            await client.receive()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "bye")


async def test_a_frozen_connection_stays_open_and_answers_nothing(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        await eventually(lambda: len(feishu.connections) == 1)
        feishu.faults.freeze(seconds=0.3)
        push = feishu.push(sample(TYPE))
        await client.ping()
        await eventually(lambda: len(push.attempts) == 1)
        with pytest.raises(ConnectionClosed):
            await client.receive()
    assert feishu.stats["pings"] == 0
    assert push.attempts[0].ending == "cut"


async def test_dropped_pongs_are_not_sent_and_dropped_acks_not_heard(connected: Any) -> None:
    async with LocalFeishu(clock_scale=FAST, ack_timeout=0.05) as feishu:
        feishu.faults.drop_pongs(times=1)
        feishu.faults.drop_acks(times=1)
        async with connected(feishu.url) as client:
            await client.ping()
            push = feishu.push(sample(TYPE))
            for _ in range(2):
                frame = await client.receive()
                assert frame.method == frames.DATA, "no pong came"
                await client.ack(frame)
            assert await push.wait(5)
    assert [attempt.ending for attempt in push.attempts] == ["timed_out", "acked"]


async def test_a_fragment_kept_back_leaves_the_event_incomplete_until_its_re_push(
    connected: Any,
) -> None:
    async with LocalFeishu(clock_scale=FAST, ack_timeout=0.05) as feishu:
        feishu.faults.drop_fragment(times=1)
        async with connected(feishu.url) as client:
            feishu.push(sample(TYPE))
            sums = [frames.headers(await client.receive())["sum"] for _ in range(2)]
    assert int(sums[0]) > 1
    assert sums[1] == "1", "only one of the pieces came, then the whole event again"


async def test_duplicates_have_the_same_event_id_and_different_message_ids(
    connected: Any,
) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        feishu.faults.duplicate(copies=3, times=1)
        push = feishu.push(sample(TYPE))
        headers = [frames.headers(await client.receive()) for _ in range(3)]
    assert {each["trace_id"] for each in headers} == {push.event_id}
    assert len({each["message_id"] for each in headers}) == 3


async def test_garbage_is_sent_as_given(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        await eventually(lambda: len(feishu.connections) == 1)
        feishu.faults.send_raw(data=b"\x00garbage")
        assert await client.ws.recv() == b"\x00garbage"


async def test_a_delayed_push_arrives_after_a_later_pong(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        feishu.faults.delay(seconds=0.2, times=1)
        push = feishu.push(sample(TYPE))
        await eventually(lambda: bool(push.attempts))
        await client.ping()
        methods = [(await client.receive()).method for _ in range(2)]
    assert methods == [frames.CONTROL, frames.DATA]


async def test_frames_that_are_no_frames_are_ignored(connected: Any) -> None:
    async with LocalFeishu() as feishu, connected(feishu.url) as client:
        await client.ws.send(b"\xff\xff")
        await client.ws.send("text")
        await client.ping()
        await client.receive()
        assert feishu.stats["ignored"] == 2


async def test_a_taken_port_is_an_os_error_and_leaves_no_server_behind() -> None:
    async with LocalFeishu() as first:
        port = int(first.url.rpartition(":")[2])
        second = LocalFeishu(port=port)
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", second._ws_port)


async def test_five_thousand_events_take_a_couple_of_seconds(connected: Any) -> None:
    async with LocalFeishu(ack_timeout=30) as feishu, connected(feishu.url) as client:
        reader = asyncio.create_task(client.ack_all())
        pushes = [feishu.push(sample(TYPE)) for _ in range(5000)]
        async with asyncio.timeout(15):  # generous for a loaded machine
            for push in pushes:
                await push.wait()
        reader.cancel()
    assert feishu.stats["acked"] == feishu.stats["sent"] == 5000


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::", "[::1]"),
    ],
)
async def test_it_names_itself_so_that_a_client_connects(
    connected: Any, host: str, reached: str
) -> None:
    if ":" in host and not ipv6():
        pytest.skip("this machine has no IPv6; switch it on for the loopback")
    async with LocalFeishu(host=host) as feishu:
        assert feishu.url.startswith(f"http://{reached}:")
        async with connected(feishu.url) as client:
            push = feishu.push(sample(TYPE))
            await client.ack(await client.receive())
            assert await push.wait(5)
