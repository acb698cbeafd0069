from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.errors import EnvelopeInvalid, FrameInvalid
from flybridge.bridge.protocol.envelope import header
from flybridge.bridge.protocol.text_codec import (
    Auth,
    AuthReply,
    Event,
    Heartbeat,
    Message,
    Ping,
    Pong,
    decode,
    encode,
)

NOW = 1_763_800_000
DATA: dict[str, Any] = {
    "event_id": "e1",
    "event_type": "im.message.receive_v1",
    "app_id": "cli_1",
    "tenant_key": "tk1",
    "create_time": NOW,
    "event": {"message": {"content": '{"text":"你好"}'}},
}


def event(**changed: Any) -> Event:
    data = {name: value for name, value in {**DATA, **changed}.items() if value is not ...}
    found = decode(json.dumps({"type": "event", "timestamp": NOW, "data": data}))
    assert isinstance(found, Event)
    return found


# Reading


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"ping","timestamp":1763800000}', Ping()),
        ('{"type":"PONG"}', Pong()),
        ('{"type":"pong","timestamp":7}', Pong(7)),
        ('{"type":"heartbeat","timestamp":1}', Heartbeat(None, "", 1)),
        (
            '{"type":"heartbeat","timestamp":1,"data":{"timestamp":1,"interval":30,"status":"ok"}}',
            Heartbeat(30, "ok", 1),
        ),
        ('{"type":"auth","timestamp":1,"code":0,"msg":"success"}', AuthReply(0, "success")),
        ('{"type":"auth","code":99991663}', AuthReply(99991663)),
        ('{"type":"auth","data":{"app_access_token":"t"}}', Auth("t")),
        (' {"unknown":[1,{}],"type":"ping"} ', Ping()),
    ],
)
def test_each_type_is_read(text: str, message: Message) -> None:
    assert decode(text) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ping",
        "[]",
        "null",
        "{}",
        '{"type":null}',
        '{"type":["ping"]}',
        '{"type":"subscribe"}',
        '{"type":"event"}',
        '{"type":"event","data":[]}',
        '{"type":"event","data":{"event_id":{}}}',
        '{"type":"heartbeat","data":7}',
        '{"type":"auth"}',
        '{"type":"auth","code":"0"}',
        '{"type":"ping"}{"type":"ping"}',
        '{"type":"event","data":{"create_time":' + "9" * 5000 + "}}",
        "\ud800",
        "[" * 100_000,
        '{"type":"ping","x":' + "[" * 100_000,
    ],
)
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(FrameInvalid):
        decode(text)


def test_a_refusal_does_not_repeat_what_may_be_a_secret() -> None:
    with pytest.raises(FrameInvalid) as caught:
        decode('{"type":"auth","data":{"app_access_token":["t-secret"]}}')
    assert "t-secret" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "t-secret" not in repr(Auth("t-secret"))


# Events


def test_an_event_becomes_a_2_0_envelope() -> None:
    assert json.loads(event().envelope) == {
        "schema": "2.0",
        "header": {
            "event_id": "e1",
            "event_type": "im.message.receive_v1",
            "create_time": "1763800000000",
            "app_id": "cli_1",
            "tenant_key": "tk1",
        },
        "event": DATA["event"],
    }


def test_the_bridge_reads_its_header() -> None:
    found = header(event().envelope)
    assert (found.event_id, found.event_type) == ("e1", "im.message.receive_v1")
    assert (found.app_id, found.tenant_key) == ("cli_1", "tk1")
    assert (found.schema, found.created_at) == ("2.0", NOW * 1000)


def test_the_event_itself_keeps_its_bytes() -> None:
    inner = '{"n": 1.50, "big": 12345678901234567890123,  "text": "\\u4f60"}'
    text = '{"type":"event","data":{"event_id":"e","event_type":"t","event":' + inner + "}}"
    found = decode(text)
    assert isinstance(found, Event)
    assert inner.encode() in found.envelope


@pytest.mark.parametrize("create_time", [..., None, "", "soon"])
def test_an_event_without_a_readable_time_is_still_an_event(create_time: object) -> None:
    found = header(event(create_time=create_time).envelope)
    assert (found.event_id, found.created_at) == ("e1", 0)


def test_a_time_in_milliseconds_is_understood_too() -> None:
    assert header(event(create_time=NOW * 1000).envelope).created_at == NOW * 1000


def test_an_event_without_an_id_has_the_same_one_when_it_comes_again() -> None:
    first, again = header(event(event_id=...).envelope), header(event(event_id="").envelope)
    assert first.event_id.startswith("derived-")
    assert first.event_id == again.event_id


def test_an_event_without_a_type_is_for_the_envelope_to_refuse() -> None:
    with pytest.raises(EnvelopeInvalid, match="event_type"):
        header(event(event_type=...).envelope)


@pytest.mark.parametrize(
    "envelope",
    [
        {"schema": "2.0", "header": {"event_id": "e", "event_type": "t"}, "event": {}},
        {"schema": "2.0", "type": "ping", "header": {"event_id": "e", "event_type": "t"}},
        {"type": "event_callback", "uuid": "e", "ts": "1.5", "event": {"type": "t"}},
    ],
)
def test_an_envelope_of_feishu_stays_as_it_is(envelope: dict[str, Any]) -> None:
    text = json.dumps(envelope)
    assert decode(text) == Event(text.encode())
    assert (header(text.encode()).event_id, header(text.encode()).event_type) == ("e", "t")


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_NAMES = ["event_id", "event_type", "app_id", "tenant_key", "create_time", "event"]


@given(st.dictionaries(st.sampled_from(_NAMES), _ANYTHING))
def test_any_data_is_refused_or_makes_an_envelope_that_reads_back(data: dict[str, Any]) -> None:
    with contextlib.suppress(FrameInvalid):
        found = decode(json.dumps({"type": "event", "data": data}))
        assert isinstance(found, Event)
        envelope = json.loads(found.envelope)
        assert envelope["event"] == data.get("event", {})
        with contextlib.suppress(EnvelopeInvalid):
            assert header(found.envelope).event_id


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FrameInvalid):
        decode(text)


# Writing


@given(
    st.just(Ping())
    | st.just(Pong(NOW))
    | st.builds(Heartbeat, st.none() | st.integers(0, 2**31), st.text(max_size=9), st.just(NOW))
    | st.builds(AuthReply, st.integers(-(2**31), 2**31), st.text(max_size=9))
    | st.builds(Auth, st.text(min_size=1), st.text(max_size=9), st.text(max_size=9)),
)
def test_what_is_written_is_read_again(message: Message) -> None:
    assert decode(encode(message, NOW)) == message


def test_a_message_carries_its_timestamp_in_seconds() -> None:
    assert encode(Ping(), NOW) == '{"type":"ping","timestamp":1763800000}'
    assert encode(Pong(), NOW) == '{"type":"pong","timestamp":1763800000}'
    assert json.loads(encode(Heartbeat(30), NOW))["data"] == {
        "timestamp": NOW,
        "interval": 30,
        "status": "ok",
    }


def test_auth_leaves_out_what_is_not_given() -> None:
    assert json.loads(encode(Auth("t"), NOW))["data"] == {"app_access_token": "t"}


def test_an_event_is_written_in_its_envelope() -> None:
    envelope = event().envelope
    assert decode(encode(Event(envelope), NOW)) == Event(envelope)
