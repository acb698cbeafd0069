from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.errors import FeishuRefused
from flybridge.bridge.protocol import conversation, frames
from flybridge.bridge.protocol.conversation import Conversation
from flybridge.bridge.protocol.delivery import Delivery, FrameOutcome, Rejected
from flybridge.bridge.protocol.envelope import header
from flybridge.bridge.protocol.fragments import MAX_PIECES
from flybridge.bridge.protocol.heartbeat import Heartbeat, Pulse
from flybridge.bridge.protocol.liveness import Dead
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.bridge.protocol.text_conversation import TextDialect

SERVICE = 33554678
PING = bytes.fromhex("0800100018f681801020002a0c0a0474797065120470696e67")
DATA = bytes.fromhex(
    "0807100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a080a"
    "0373756d1201312a080a037365711201302a0e0a0874726163655f69641202743142077b2261223a317d"
)
ACK_200 = bytes.fromhex(
    "0807100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a080a"
    "0373756d1201312a080a037365711201302a0e0a0874726163655f6964120274312a0b0a0662697a5f727412013342"
    "0c7b22636f6465223a3230307d"
)
PIECE_0 = bytes.fromhex(
    "0809100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d322a080a"
    "0373756d1201322a080a037365711201302a0e0a0874726163655f69641202743242057b2261223a"
)
PIECE_1 = bytes.fromhex(
    "080a100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d322a080a"
    "0373756d1201322a080a037365711201312a0e0a0874726163655f6964120274324202317d"
)


def started(now: float = 0.0, **options: Any) -> Conversation:
    return Conversation(SERVICE, ClientConfig(), now, **options)


def data(payload: bytes = b"{}", *, method: int = frames.DATA, **headers: str | None) -> bytes:
    """An event's frame; a header of None is left out."""
    all_headers: dict[str, str | None] = {"type": "event", "message_id": "m", **headers}
    given_headers = {key: value for key, value in all_headers.items() if value is not None}
    frame = frames.new(service=SERVICE, method=method, headers=given_headers, payload=payload)
    return frames.encode(frame)


def control(kind: str, payload: bytes | None = None) -> bytes:
    frame = frames.new(
        service=SERVICE, method=frames.CONTROL, headers={"type": kind}, payload=payload
    )
    return frames.encode(frame)


def rejected(spoken: Conversation, frame: bytes) -> Rejected:
    assert spoken.receive_data(frame, 0.0) == []
    (found,) = spoken.take_rejected()
    return found


def delivered(spoken: Conversation, frame: bytes, now: float = 0.0) -> Delivery:
    (found,) = spoken.receive_data(frame, now)
    return found


# Pushes


def test_a_whole_push_is_delivered() -> None:
    spoken = started()
    delivery = delivered(spoken, DATA, 5.0)
    assert (delivery.kind, delivery.payload) == ("event", b'{"a":1}')
    assert (delivery.message_id, delivery.trace_id, delivery.received) == ("m1", "t1", 5.0)
    assert spoken.counts == {"event": 1}


def test_its_ack_is_the_frame_with_the_time_it_took_and_the_code() -> None:
    spoken = started()
    assert spoken.ack(delivered(spoken, DATA, 1.0), 200, 1.003) == ACK_200


def test_an_ack_of_500_says_so() -> None:
    spoken = started()
    ack = frames.decode(spoken.ack(delivered(spoken, DATA), 500, 0.0))
    assert ack.payload == b'{"code":500}'


def test_an_ack_carries_a_callbacks_result_in_base64() -> None:
    spoken = started()
    result = b'{"toast":{"type":"success","content":"ok"}}'
    ack = frames.decode(spoken.ack(delivered(spoken, DATA), 200, 0.0, result))
    assert json.loads(ack.payload) == {
        "code": 200,
        "data": "eyJ0b2FzdCI6eyJ0eXBlIjoic3VjY2VzcyIsImNvbnRlbnQiOiJvayJ9fQ==",
    }


def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    spoken = started()
    ack = frames.decode(spoken.ack(delivered(spoken, DATA, 10.0), 200, 9.0))
    assert frames.headers(ack)["biz_rt"] == "0"


def test_the_ack_echoes_headers_and_fields_nobody_knows() -> None:
    spoken = started()
    frame = data(instance_id="10.0.0.1:1", timestamp="1", new="x") + b"\x4a\x02id\x52\x03new"
    ack = spoken.ack(delivered(spoken, frame), 200, 0.0)
    headers = frames.headers(frames.decode(ack))
    assert headers == {
        "type": "event",
        "message_id": "m",
        "instance_id": "10.0.0.1:1",
        "timestamp": "1",
        "new": "x",
        "biz_rt": "0",
    }
    assert frames.decode(ack).log_id_new == "id"
    assert ack.endswith(b"\x52\x03new")


def test_a_legacy_card_is_delivered_as_such() -> None:
    spoken = started()
    assert delivered(spoken, data(type="card")).kind == "card"
    assert spoken.counts == {"card": 1}


@pytest.mark.parametrize(
    "headers",
    [{"message_id": None}, {"sum": "1"}, {"seq": "0"}, {"sum": "1", "seq": "0"}, {"sum": "01"}],
)
def test_a_whole_push_needs_few_headers(headers: dict[str, str | None]) -> None:
    spoken = started()
    frame = data(b"x", **{"seq": "0", **headers})
    assert delivered(spoken, frame).payload == b"x"


def test_pieces_are_joined_and_only_the_last_to_come_is_answered() -> None:
    spoken = started()
    assert spoken.receive_data(PIECE_1, 0.0) == []
    delivery = delivered(spoken, PIECE_0, 2.0)
    assert (delivery.payload, delivery.message_id) == (b'{"a":1}', "m2")
    ack = frames.decode(spoken.ack(delivery, 200, 2.0))
    assert (ack.seq_id, frames.headers(ack)["seq"]) == (9, "0")
    assert spoken.counts == {"fragment": 1, "event": 1}


# Refusals


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"type": "other"}, FrameOutcome.TYPE_UNKNOWN),
        ({"type": None}, FrameOutcome.TYPE_UNKNOWN),
        ({"sum": "many"}, FrameOutcome.SUM_INVALID),
        ({"sum": "-1"}, FrameOutcome.SUM_INVALID),
        ({"sum": "٣"}, FrameOutcome.SUM_INVALID),
        ({"sum": "1" * 5000}, FrameOutcome.SUM_INVALID),
        ({"sum": "1", "seq": "1"}, FrameOutcome.SEQ_INVALID),
        ({"sum": "1", "seq": "-1"}, FrameOutcome.SEQ_INVALID),
        ({"sum": "0", "seq": "0"}, FrameOutcome.SEQ_INVALID),
    ],
)
def test_a_whole_push_refused_for_its_headers_can_be_buried_and_acked(
    headers: dict[str, str | None], outcome: str
) -> None:
    spoken = started()
    found = rejected(spoken, data(b"kept", **headers))
    assert (found.reason, found.payload) == (outcome, b"kept")
    assert found.headers["message_id"] == "m"
    assert spoken.counts == {outcome: 1}
    assert found.delivery is not None
    ack = frames.decode(spoken.ack(found.delivery, 200, 0.0))
    assert ack.payload == b'{"code":200}'


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"sum": str(MAX_PIECES + 1), "seq": "0"}, FrameOutcome.SUM_INVALID),
        ({"sum": "2"}, FrameOutcome.SEQ_INVALID),
        ({"sum": "2", "seq": "2"}, FrameOutcome.SEQ_INVALID),
        ({"sum": "2", "seq": "x"}, FrameOutcome.SEQ_INVALID),
        ({"sum": "2", "seq": "-1"}, FrameOutcome.SEQ_INVALID),
        ({"sum": "2", "seq": "0", "message_id": None}, FrameOutcome.FRAGMENT_ANONYMOUS),
    ],
)
def test_a_refused_piece_is_kept_but_not_acked_so_that_the_event_comes_again(
    headers: dict[str, str | None], outcome: str
) -> None:
    spoken = started()
    found = rejected(spoken, data(b"kept", **headers))
    assert (found.reason, found.payload, found.delivery) == (outcome, b"kept", None)
    assert spoken.counts == {outcome: 1}
    assert len(spoken.fragments) == 0


def test_a_repeated_piece_does_not_disturb_its_set() -> None:
    spoken = started()
    spoken.receive_data(PIECE_0, 0.0)
    assert rejected(spoken, PIECE_0).reason == "fragment_repeated"
    assert delivered(spoken, PIECE_1).payload == b'{"a":1}'
    assert spoken.counts == {"fragment": 1, "fragment_repeated": 1, "event": 1}


def test_bytes_that_are_no_frame_are_kept_whole() -> None:
    spoken = started()
    found = rejected(spoken, b"\xff no frame")
    assert (found.reason, found.payload, found.delivery) == ("invalid", b"\xff no frame", None)


def test_a_frame_neither_control_nor_data_is_refused() -> None:
    assert rejected(started(), data(b"x", method=2)).reason == "method_unknown"


def test_what_waits_to_be_buried_is_bounded_and_the_oldest_makes_room() -> None:
    spoken = started()
    for number in range(conversation.MAX_REJECTED + 1):
        spoken.receive_data(b"\xff%d" % number, 0.0)
    found = spoken.take_rejected()
    assert len(found) == conversation.MAX_REJECTED
    assert found[0].payload == b"\xff1"
    assert spoken.take_rejected() == []
    half = conversation.MAX_REJECTED_BYTES // 2
    for _ in range(3):
        spoken.receive_data(b"\xff" * half, 0.0)
    assert len(spoken.take_rejected()) == 2


@given(st.lists(st.binary(max_size=200)))
def test_any_bytes_are_counted_once_each_and_nothing_is_raised(messages: list[bytes]) -> None:
    spoken = started()
    for message in messages:
        spoken.receive_data(message, 0.0)
    assert spoken.counts.total() == len(messages)
    assert set(spoken.counts) <= set(FrameOutcome)


_HEADER = st.sampled_from(["0", "1", "2", "3", "256", "257", "-1", "x", "", "9" * 30, "٣", None])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["event", "card", "pong", "ping", "", None]),
            st.sampled_from(["a", "b", "", None]),
            _HEADER,
            _HEADER,
            st.integers(0, 2),
            st.binary(max_size=20),
        )
    )
)
def test_any_headers_are_counted_once_each_and_no_frame_vanishes(frames_sent: list[Any]) -> None:
    spoken = started()
    kept = 0
    for kind, message_id, total, seq, method, payload in frames_sent:
        frame = data(payload, method=method, type=kind, message_id=message_id, sum=total, seq=seq)
        kept += len(spoken.receive_data(frame, 0.0)) + len(spoken.take_rejected())
    ignored = sum(spoken.counts[name] for name in ("fragment", "pong", "ping", "control_unknown"))
    assert spoken.counts.total() == len(frames_sent)
    assert kept + ignored == len(frames_sent)


# Heartbeat


def test_the_first_ping_goes_at_once_and_the_next_after_the_interval() -> None:
    spoken = started(100.0)
    assert spoken.next_timer() == 100.0
    assert spoken.on_timer(100.0) == PING
    spoken.receive_data(control("pong"), 100.2)
    assert (spoken.last_pong, spoken.last_frame) == (100.2, 100.2)
    assert spoken.heartbeat.round_trip == pytest.approx(0.2)
    assert spoken.next_timer() == 124.0
    assert spoken.on_timer(123.9) is None
    assert spoken.on_timer(124.0) == PING


def test_an_endpoints_interval_holds_from_the_start_if_it_is_short() -> None:
    spoken = Conversation(SERVICE, ClientConfig(ping_interval=7), 100.0)
    assert spoken.on_timer(100.0) == PING
    assert spoken.next_timer() == 107.0


def test_a_ping_without_any_answer_ends_the_connection_after_20_seconds() -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    assert spoken.next_timer() == 120.0
    assert spoken.on_timer(119.9) is None
    assert spoken.on_timer(120.0) == Dead("no frame within 20 s after ping")


@pytest.mark.parametrize("frame", [DATA, b"\xff no frame", control("ping"), control("unheard")])
def test_any_frame_at_all_answers_a_ping(frame: bytes) -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    spoken.receive_data(frame, 119.0)
    assert spoken.next_timer() == 124.0
    assert spoken.last_pong is None


@pytest.mark.parametrize("text", ['{"type":"ping"}', '{"type":"auth","code":1}', "no JSON"])
def test_without_the_text_dialect_a_text_message_is_life_and_nothing_else(text: str) -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    assert spoken.receive_text(text, 119.0) == []
    assert spoken.next_timer() == 124.0
    assert spoken.counts == {"text": 1}
    assert (spoken.take_rejected(), spoken.take_answers()) == ([], [])


def test_pings_of_the_server_are_ignored() -> None:
    spoken = started()
    assert spoken.receive_data(control("ping"), 0.0) == []
    assert spoken.take_rejected() == []
    assert spoken.counts == {"ping": 1}


def test_a_pongs_interval_holds_for_the_very_next_ping() -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    spoken.receive_data(control("pong", b'{"PingInterval":7}'), 101.0)
    assert spoken.config == ClientConfig(ping_interval=7)
    assert spoken.next_timer() == 107.0


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"PingInterval":1e999}']
)
def test_a_pong_without_readable_settings_changes_none(payload: bytes) -> None:
    spoken = started()
    spoken.receive_data(control("pong", payload), 0.0)
    assert spoken.config == ClientConfig()
    assert spoken.counts == {"pong": 1}


def test_an_incomplete_set_wakes_us_when_its_time_is_over() -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    spoken.receive_data(PIECE_0, 101.0)
    assert spoken.on_timer(124.0) == PING
    assert spoken.next_timer() == 131.0
    assert spoken.on_timer(131.0) is None
    assert (len(spoken.fragments), spoken.fragments.expired) == (0, 1)


def test_once_reading_is_paused_pings_go_on_and_nothing_dies() -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    spoken.pause(101.0)
    assert spoken.next_timer() == 124.0
    assert spoken.on_timer(124.0) == PING
    assert spoken.on_timer(10_000.0) == PING


@given(
    st.integers(1, 86_400),
    st.floats(0.0, 300.0),
    st.floats(0.001, 19.0),
    st.lists(st.floats(0.0, 300.0), max_size=20),
)
def test_a_half_open_connection_is_noticed_within_45_seconds_whatever_the_server_wants(
    ping_interval: int, frozen_at: float, round_trip: float, pushes: list[float]
) -> None:
    spoken = Conversation(SERVICE, ClientConfig(ping_interval=ping_interval), 0.0)
    incoming = sorted((at, DATA) for at in pushes)
    while True:
        now = min(spoken.next_timer(), incoming[0][0] if incoming else float("inf"))
        if incoming and now == incoming[0][0]:
            _, frame = incoming.pop(0)
            if now < frozen_at:
                spoken.receive_data(frame, now)
            continue
        due = spoken.on_timer(now)
        if isinstance(due, Dead):
            break
        if due is not None:
            incoming = sorted([*incoming, (now + round_trip, control("pong"))])
    assert frozen_at <= now <= frozen_at + 44.0 + 1e-6


def test_trouble_brings_the_next_ping_forward() -> None:
    spoken = started(100.0)
    spoken.on_timer(100.0)
    spoken.receive_data(DATA, 119.0)
    assert spoken.on_timer(124.0) == PING
    assert spoken.next_timer() == 136.0


def test_a_server_that_answers_everything_but_pings_is_silent_after_two_minutes() -> None:
    spoken = started(0.0)
    now = 0.0
    while not spoken.heartbeat.statistics(now, 0).silent:
        now = spoken.next_timer()
        assert not isinstance(spoken.on_timer(now), Dead)
        spoken.receive_data(DATA, now)
    assert now == 120.0
    assert spoken.next_timer() > 120.0


def test_the_heartbeat_goes_on_over_connections() -> None:
    heartbeat = Heartbeat()
    for began in (0.0, 100.0):
        spoken = started(began, heartbeat=heartbeat)
        assert spoken.last_pong is None
        spoken.on_timer(began)
        spoken.receive_data(control("pong"), began + 0.5)
        spoken.end(began + 1.0)
    assert (heartbeat.total, heartbeat.statistics(101.0, 0).mean_interval) == (2, None)


def test_a_connection_that_is_given_up_missed_its_ping() -> None:
    spoken = started(0.0)
    spoken.on_timer(0.0)
    assert isinstance(spoken.on_timer(20.0), Dead)
    assert spoken.heartbeat.missed == 1


def test_once_paused_no_ping_is_missed_and_nothing_is_silent() -> None:
    spoken = started(0.0)
    spoken.on_timer(0.0)
    spoken.pause(1.0)
    now = 1.0
    while now < 300.0:
        now = spoken.next_timer()
        assert spoken.on_timer(now) == PING
    assert (spoken.heartbeat.missed, spoken.heartbeat.rhythm) == (0, "steady")


def test_counts_go_on_over_connections() -> None:
    first = started()
    first.receive_data(DATA, 0.0)
    second = started(counts=first.counts)
    second.receive_data(DATA, 0.0)
    assert first.counts == {"event": 2}


# The text dialect

WALL = 1763800000.7
TEXT_PING = '{"type":"ping","timestamp":1763800000}'
TEXT_PONG = '{"type":"pong","timestamp":1763800000}'


def texting(**options: Any) -> Conversation:
    return started(100.0, text_dialect=TextDialect(wall=lambda: WALL, **options))


def test_until_the_server_has_spoken_we_ping_in_both_dialects() -> None:
    spoken = texting()
    assert spoken.on_timer(100.0) == PING
    assert spoken.take_answers() == [TEXT_PING]
    assert spoken.take_answers() == []
    spoken.receive_data(control("pong"), 101.0)
    assert spoken.on_timer(124.0) == PING
    assert spoken.take_answers() == []


def test_to_a_server_that_speaks_text_we_ping_and_tell_our_interval_in_text() -> None:
    spoken = texting()
    spoken.on_timer(100.0)
    spoken.take_answers()
    assert spoken.receive_text(TEXT_PONG, 100.5) == []
    assert (spoken.last_pong, spoken.heartbeat.round_trip) == (100.5, 0.5)
    assert spoken.on_timer(124.0) == TEXT_PING
    (heartbeat,) = map(json.loads, spoken.take_answers())
    assert heartbeat == {
        "type": "heartbeat",
        "timestamp": 1763800000,
        "data": {"timestamp": 1763800000, "interval": 24, "status": "ok"},
    }
    assert spoken.counts == {"pong": 1}


def test_a_ping_of_the_server_is_answered_with_a_pong() -> None:
    spoken = texting()
    spoken.take_answers()
    assert spoken.receive_text('{"type":"ping","timestamp":1}', 101.0) == []
    assert spoken.take_answers() == [TEXT_PONG]
    assert spoken.counts == {"ping": 1}


def test_a_heartbeat_of_the_server_is_a_sign_of_life() -> None:
    spoken = texting()
    spoken.on_timer(100.0)
    spoken.receive_text('{"type":"heartbeat","timestamp":1}', 119.0)
    assert spoken.next_timer() == 124.0
    assert spoken.counts == {"heartbeat": 1}
    assert spoken.last_pong == 119.0


def test_a_pulse_is_taken_once_and_a_pong_that_nobody_asked_for_has_no_round_trip() -> None:
    conversation = started()
    conversation.receive_data(control("pong"), 1.0)
    assert conversation.take_pulse() == Pulse(24.0, "steady", None)
    assert conversation.take_pulse() is None
    conversation.ping(2.0)
    conversation.receive_data(control("pong", b'{"PingInterval":5}'), 2.5)
    assert conversation.take_pulse() == Pulse(5.0, "steady", 0.5)


@pytest.mark.parametrize(
    ("fields", "pulse"),
    [
        ('"data":{"interval":30,"status":"busy"}', Pulse(30, "busy")),
        ('"data":{}', Pulse(None, "")),
        ('"timestamp":7', Pulse(None, "", sent_at=7_000)),
        ('"timestamp":7,"data":{"timestamp":8}', Pulse(None, "", sent_at=8_000)),
    ],
)
def test_a_heartbeat_in_text_is_a_pulse_that_speaks_for_itself(fields: str, pulse: Pulse) -> None:
    spoken, text = texting(), f'{{"type":"heartbeat",{fields}}}'
    spoken.receive_text(text, 101.0)
    assert spoken.take_pulse() == replace(pulse, message=text)
    spoken.receive_text('{"type":"ping"}', 102.0)
    assert spoken.take_pulse() is None


def test_heartbeats_in_text_count_as_pongs_do_and_a_ping_beside_them_is_not_missed() -> None:
    spoken = texting()
    for second in range(1, 131):
        spoken.receive_text('{"type":"heartbeat","timestamp":1}', 100.0 + second)
        if spoken.next_timer() <= 100.0 + second:
            spoken.on_timer(100.0 + second)
    told = spoken.heartbeat.statistics(230.0, 0)
    assert (told.total, told.missed, told.rhythm) == (130, 0, "steady")
    assert (told.mean_interval, told.deviation, told.round_trip) == (1.0, 0.0, None)
    assert spoken.last_pong == 230.0


def test_every_message_of_the_dialect_but_events_is_heard_once() -> None:
    spoken = texting()
    texts = {
        "ping": '{"type":"ping"}',
        "pong": '{"type":"pong"}',
        "heartbeat": '{"type":"heartbeat"}',
        "auth": '{"type":"auth","code":0}',
    }
    for text in texts.values():
        spoken.receive_text(text, 101.0)
    spoken.receive_text('{"type":"event","data":{"event":{}}}', 101.0)
    assert spoken.take_heard() == list(texts.items())
    assert spoken.take_heard() == []


def test_an_event_in_text_is_delivered_and_its_ack_is_nothing() -> None:
    spoken = texting()
    text = '{"type":"event","data":{"event_id":"e","event_type":"t","event":{}}}'
    (delivery,) = spoken.receive_text(text, 101.0)
    assert (delivery.kind, delivery.received) == ("event", 101.0)
    assert header(delivery.payload).event_id == "e"
    assert spoken.counts == {"event": 1}
    for code in (200, 500):
        assert spoken.ack(delivery, code, 101.5) is None


def test_without_a_token_no_auth_is_sent() -> None:
    assert not any("auth" in text for text in texting(app_id="cli_1").take_answers())


def test_with_a_token_auth_goes_before_everything_else() -> None:
    spoken = texting(token="t-secret", app_id="cli_1", event_url="https://events.test")
    auth, ping = map(json.loads, spoken.take_answers())
    assert auth == {
        "type": "auth",
        "timestamp": 1763800000,
        "data": {
            "app_access_token": "t-secret",
            "app_id": "cli_1",
            "event_url": "https://events.test",
        },
    }
    assert ping["type"] == "ping"


def test_being_let_in_is_counted_and_being_refused_raised() -> None:
    spoken = texting(token="t-secret")
    assert spoken.receive_text('{"type":"auth","code":0,"msg":"success"}', 101.0) == []
    with pytest.raises(FeishuRefused, match="check FLYBRIDGE_TEXT_TOKEN") as caught:
        spoken.receive_text('{"type":"auth","code":7,"msg":"t-secret is old"}', 101.0)
    assert caught.value.code == 7
    assert "t-secret" not in str(caught.value)
    assert spoken.counts == {"auth": 2}


def test_a_refusal_without_a_token_says_that_one_is_wanted() -> None:
    with pytest.raises(FeishuRefused, match="set FLYBRIDGE_TEXT_TOKEN"):
        texting().receive_text('{"type":"auth","code":7}', 101.0)


def test_the_token_is_in_no_repr() -> None:
    assert "t-secret" not in repr(TextDialect(token="t-secret"))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"type":"other"}', "\ud800", "[" * 10**5])
def test_text_that_is_no_message_is_counted_and_can_be_buried(text: str) -> None:
    spoken = texting()
    assert spoken.receive_text(text, 101.0) == []
    (found,) = spoken.take_rejected()
    assert (found.reason, found.payload) == ("invalid", text.encode(errors="replace"))
    assert found.delivery is None
    assert spoken.counts == {"invalid": 1}


_MESSAGE = st.builds(
    lambda fields: json.dumps(fields),
    st.dictionaries(
        st.sampled_from(["type", "schema", "header", "data", "msg", "timestamp", "event"]),
        st.sampled_from(["ping", "pong", "event", "heartbeat", "auth", "event_callback", "2.0"])
        | st.none()
        | st.integers()
        | st.dictionaries(
            st.sampled_from(["event_id", "event_type", "create_time", "event", "interval"]),
            st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
        ),
    ),
)


@given(st.lists(_MESSAGE | st.text(max_size=50)))
def test_any_text_is_counted_once_each_and_nothing_vanishes(texts: list[str]) -> None:
    spoken = texting()
    kept = 0
    for text in texts:
        kept += len(spoken.receive_text(text, 101.0)) + len(spoken.take_rejected())
    told = sum(
        spoken.counts[name] for name in ("ping", "pong", "heartbeat", "auth", "control_unknown")
    )
    assert spoken.counts.total() == len(texts) == kept + told
