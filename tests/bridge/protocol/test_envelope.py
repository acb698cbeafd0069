from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.errors import EnvelopeInvalid
from flybridge.bridge.protocol.envelope import MAX_ENVELOPE, header
from flybridge.handlers import Event

V2: dict[str, Any] = {
    "schema": "2.0",
    "header": {
        "event_id": "5e3702a84e847582be8db7fb73283c02",
        "event_type": "im.message.receive_v1",
        "create_time": "1608725989000",
        "token": "t",
        "app_id": "cli_9f5343c580712544",
        "tenant_key": "2ca1d211f64f6438",
    },
    "event": {"message": {"content": '{"text":"hi"}'}},
}
V1: dict[str, Any] = {
    "ts": "1502199207.7171419",
    "uuid": "bc447199585340d1f3728d26b1c0297a",
    "token": "t",
    "type": "event_callback",
    "event": {
        "type": "approval_instance",
        "app_id": "cli_1",
        "tenant_key": "k",
        "uuid": "the creator's own",
    },
}


def v2(**changed: Any) -> bytes:
    return json.dumps({**V2, "header": {**V2["header"], **changed}}).encode()


def refused(payload: bytes) -> str:
    with pytest.raises(EnvelopeInvalid) as caught:
        header(payload)
    assert str(caught.value)
    return caught.value.reason


def test_a_type_by_another_name_is_the_type_that_feishu_sends() -> None:
    assert header(v2(event_type="meeting.meeting.started_v1")).event_type == (
        "vc.meeting.meeting_started_v1"
    )
    old = {**V1, "event": {**V1["event"], "type": "approval.approval.approved_v1"}}
    assert header(json.dumps(old).encode()).event_type == "approval_instance"


def test_a_2_0_envelope() -> None:
    read = header(json.dumps(V2).encode())
    assert (read.event_id, read.event_type) == (
        "5e3702a84e847582be8db7fb73283c02",
        "im.message.receive_v1",
    )
    assert (read.app_id, read.tenant_key) == ("cli_9f5343c580712544", "2ca1d211f64f6438")
    assert (read.schema, read.created_at) == ("2.0", 1608725989000)


def test_a_1_0_envelope_is_known_by_its_outer_uuid() -> None:
    read = header(json.dumps(V1).encode())
    assert read.event_id == "bc447199585340d1f3728d26b1c0297a"
    assert (read.event_type, read.app_id, read.tenant_key) == ("approval_instance", "cli_1", "k")
    assert (read.schema, read.created_at) == ("1.0", 1502199207717)


def test_the_header_may_stand_behind_the_event_and_hold_fields_nobody_knows() -> None:
    turned = dict(reversed({**V2, "new": [1, {"a": None}]}.items()))
    assert header(json.dumps(turned).encode()).event_type == "im.message.receive_v1"


@pytest.mark.parametrize("missing", [{"event_id": None}, {"event_id": ""}])
def test_without_an_id_the_payload_gives_one_that_a_retry_gives_again(missing: Any) -> None:
    payload = v2(**missing)
    read = header(payload)
    assert read.event_id == "derived-" + hashlib.sha256(payload).hexdigest()
    assert header(payload) == read


def test_a_1_0_event_without_uuid_gets_a_derived_id_too() -> None:
    payload = json.dumps({**V1, "uuid": None}).encode()
    assert header(payload).event_id.startswith("derived-")


@pytest.mark.parametrize(
    ("given_value", "text"),
    [(12345, "12345"), (1.5, "1.5"), (True, ""), (None, ""), (["x"], ""), (10**30, "")],
)
def test_a_number_where_a_string_belongs_does_not_cost_the_event(
    given_value: Any, text: str
) -> None:
    read = header(v2(app_id=given_value, tenant_key=given_value))
    assert (read.app_id, read.tenant_key) == (text, text)


def test_an_id_that_is_a_number_becomes_text() -> None:
    assert header(v2(event_id=42)).event_id == "42"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1608725989", 1608725989000),
        ("1608725989000", 1608725989000),
        ("1608725989000123", 1608725989000),
        (1608725989000, 1608725989000),
        (1608725989, 1608725989000),
        ("1502199207.7171419", 1502199207717),
        (1502199207.5, 1502199207500),
        ("garbage", 0),
        ("", 0),
        (None, 0),
        ("-5", 0),
        ("nan", 0),
        ("inf", 0),
        ("1e999", 0),
        ("9" * 5000, 0),
        (True, 0),
        (" 1608725989000 ", 1608725989000),
    ],
)
def test_times_are_milliseconds_whatever_unit_they_came_in(value: Any, expected: int) -> None:
    assert header(v2(create_time=value)).created_at == expected


def test_decimal_seconds_of_the_approval_pages_are_read() -> None:
    payload = v2(create_time=None, event_create_time="1666079207.003")
    assert header(payload).created_at == 1666079207003


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"not json",
        b"\xff\xfe{}",
        json.dumps(V2).encode() + b" x",
        json.dumps(V2).encode("utf-16"),
        b'{"schema":"2.0","event":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' + b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_is_refused_as_decode(payload: bytes) -> None:
    assert refused(payload) == "decode"


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"[]",
        b"5",
        b"{}",
        b'{"schema":"3.0","header":{"event_type":"t"}}',
        b'{"schema":"2.0"}',
        b'{"schema":"2.0","header":5}',
        b'{"schema":"2.0","header":{"event_id":"x"}}',
        b'{"schema":"2.0","header":{"event_type":["t"]}}',
        b'{"schema":["2.0"],"header":{"event_type":"t"}}',
        b'{"type":"url_verification","challenge":"c"}',
        b'{"uuid":"u","event":[]}',
        b'{"uuid":"u","event":{}}',
    ],
)
def test_json_that_is_no_envelope_is_refused_as_schema(payload: bytes) -> None:
    assert refused(payload) == "schema"


def test_an_encrypted_envelope_says_that_it_is_one_and_what_to_do() -> None:
    with pytest.raises(EnvelopeInvalid, match="remove the Encrypt Key") as caught:
        header(
            b'{"encrypt":"FIAfJPGRmFZWkaxPQ1XrJZVbv2JwdjfLk4jx0k/U1deAqYK3AXOZ5zcHt/cC4ZNTqYwWUW"}'
        )
    assert caught.value.reason == "encrypted"


@pytest.mark.parametrize("schema", ["2.0", "2", 2, 2.0, "1.0", "", None])
def test_the_shape_tells_the_two_envelopes_apart_whatever_schema_says(schema: Any) -> None:
    for envelope, found in ((V2, "2.0"), (V1, "1.0")):
        read = header(json.dumps({**envelope, "schema": schema}).encode())
        assert (read.schema, bool(read.event_id), bool(read.event_type)) == (found, True, True)


@pytest.mark.parametrize(
    "name",
    [b"Lin\\ud83d", b"\\udc00Lin", b"Lin\xe6\x9d", b"Lin\xed\xa0\xbd", b"\\ud83d\\ud83d\\ude00"],
)
def test_a_damaged_character_does_not_cost_the_event(name: bytes) -> None:
    payload = json.dumps(V2).encode().replace(b"hi", name)
    assert header(payload) == header(json.dumps(V2).encode())
    assert header(b"\xef\xbb\xbf" + payload) == header(payload)


@given(st.text(st.characters(codec=None), min_size=1, max_size=12))
def test_bridge_and_handler_read_any_text_alike(text: str) -> None:
    payload = v2(event_id=text, app_id=text, tenant_key=text)
    read, event = header(payload), Event.from_json(payload)
    assert (read.event_id, read.app_id) == (event.id, event.app_id)
    assert read.tenant_key == event.tenant_key


@pytest.mark.parametrize(
    "value", ["7", 7, 7.5, " 1764000000004 ", "1764000000.25", None, True, [], {}]
)
def test_bridge_and_handler_read_odd_values_alike(value: Any) -> None:
    odd = ("app_id", "tenant_key", "create_time", "event_create_time")
    for payload in (v2(**dict.fromkeys(odd, value)), v2(create_time=None, event_create_time=value)):
        read, event = header(payload), Event.from_json(payload)
        assert (read.app_id, read.tenant_key) == (event.app_id, event.tenant_key)
        created = int(event.created_at.timestamp() * 1000) if event.created_at else 0
        assert read.created_at == created


def test_an_envelope_above_the_limit_is_refused_unread() -> None:
    assert refused(b"[" * (MAX_ENVELOPE + 1)) == "too_large"


@given(st.binary(max_size=400))
def test_any_bytes_are_an_envelope_or_invalid_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(EnvelopeInvalid):
        assert header(data).event_id


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_NAMES = ["event_id", "event_type", "app_id", "tenant_key", "create_time", "event_create_time"]
_OUTER = dict.fromkeys(("schema", "uuid", "ts", "type", "encrypt", "event"), _JSON)


@given(
    st.fixed_dictionaries({}, optional=_OUTER),
    st.dictionaries(st.sampled_from(_NAMES), _JSON),
    st.sampled_from(["2.0", "", None]),
)
def test_any_json_in_any_field_is_an_envelope_or_invalid_and_nothing_else(
    outer: dict[str, Any], inner: dict[str, Any], schema: Any
) -> None:
    payload = msgspec.json.encode({**outer, "schema": schema, "header": inner})
    try:
        read = header(payload)
    except EnvelopeInvalid:
        return
    assert read.event_id
    assert read.event_type
    assert read.created_at >= 0
