from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.handlers import Event
from flybridge.handlers.errors import EventInvalid

Maker = Callable[..., dict[str, Any]]


def test_v2_takes_its_identity_from_the_header(v2: Maker) -> None:
    event = Event.from_json(json.dumps(v2(chat_id="oc_1")).encode())
    assert (event.id, event.type) == ("ev-1", "im.message.receive_v1")
    assert (event.app_id, event.tenant_key, event.schema) == ("cli_x", "tk1", "2.0")
    assert event.created_at == datetime(2025, 11, 22, 8, 26, 40, 123000, tzinfo=UTC)
    assert event.body == {"chat_id": "oc_1"}
    assert event.envelope["header"]["token"] == "vt"


def test_v1_takes_its_id_from_the_outer_uuid_never_from_the_creators(v1: Maker) -> None:
    event = Event.from_envelope(v1(uuid="creator-uuid"))
    assert (event.id, event.type) == ("ev-1", "approval_instance")
    assert (event.app_id, event.tenant_key, event.schema) == ("cli_x", "tk1", "1.0")
    assert event.created_at == datetime(2025, 11, 22, 8, 26, 40, 123456, tzinfo=UTC)
    assert event.body["uuid"] == "creator-uuid"


def test_an_alias_is_left_as_it_was_sent(v2: Maker) -> None:
    assert (
        Event.from_envelope(v2("meeting.meeting.started_v1")).type == "meeting.meeting.started_v1"
    )


@pytest.mark.parametrize("missing", ["event_id", "event_type"])
@pytest.mark.parametrize("value", [None, "", True, ["x"]])
def test_a_v2_header_without_id_or_type_is_refused(v2: Maker, missing: str, value: object) -> None:
    envelope = v2()
    envelope["header"][missing] = value
    with pytest.raises(EventInvalid, match=f"header.{missing}"):
        Event.from_envelope(envelope)


def test_a_v1_envelope_without_uuid_or_type_is_refused(v1: Maker) -> None:
    with pytest.raises(EventInvalid, match="uuid"):
        Event.from_envelope({**v1(), "uuid": None})
    with pytest.raises(EventInvalid, match=r"event\.type"):
        Event.from_envelope(v1(""))


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"schema": "2.0", "event": {}}, "header"),
        ({"schema": "2.0", "header": [], "event": {}}, "header"),
        ({"schema": "3.0", "header": {"event_type": "t"}}, "3.0"),
        ({"schema": "2.0", "header": {}, "event": []}, "`event`"),
        ({"encrypt": "base64"}, "decrypt"),
        ({"type": "url_verification", "challenge": "c"}, "url_verification"),
        ({}, "not an event"),
        ([], "list"),
        ("text", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(envelope: Any, said: str) -> None:
    with pytest.raises(EventInvalid, match=said):
        Event.from_envelope(envelope)


def test_fields_that_may_be_missing_are_empty(v2: Maker) -> None:
    envelope = v2()
    envelope["header"] = {"event_id": "e", "event_type": "t", "app_id": [], "create_time": "soon"}
    envelope["event"] = None
    event = Event.from_envelope(envelope)
    assert (event.app_id, event.tenant_key, event.created_at, event.body) == ("", "", None, {})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{} x",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"event":' * 100_000 + b"{}" + b"}" * 100_000,
        b'{"uuid":"u","event":{"type":"t","n":' + b"9" * 1_000_000 + b"}}",
        b'{"uuid":"u","event":{"type":"t","n":1e999999}}',
        b'{"uuid":"u","event":{"type":"t","n":NaN}}',
        b'{"uuid":"u","event":{"type":"t","n":-Infinity}}',
        b'{"uuid":"\\ud80","event":{"type":"t"}}',
        b"null",
        b"7",
        '{"uuid":"u"}'.encode("utf-16"),
    ],
    ids=lambda text: repr(text[:24]),
)
def test_hostile_json_is_refused_quickly(text: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(EventInvalid):
        Event.from_json(text)
    assert time.perf_counter() - started < 1.0


def test_a_deep_refusal_does_not_hold_the_text_it_refused() -> None:
    with pytest.raises(EventInvalid) as refusal:
        Event.from_json(b'{"uuid":' + b'"' + b"s" * 10_000 + b'"' + b"]")
    assert len(str(refusal.value)) < 200


@given(st.binary())
def test_any_bytes_are_an_event_or_refused(data: bytes) -> None:
    with pytest.raises(EventInvalid):
        Event.from_json(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "schema": json_values,
            "uuid": json_values | st.just("u"),
            "ts": json_values,
            "header": json_values
            | st.fixed_dictionaries(
                {"event_id": json_values, "event_type": json_values, "create_time": json_values}
            ),
            "event": json_values | st.fixed_dictionaries({"type": json_values}),
        },
    )
)
def test_any_envelope_is_an_event_with_id_and_type_or_refused(envelope: dict[str, Any]) -> None:
    try:
        event = Event.from_envelope(envelope)
    except EventInvalid:
        return
    assert event.id
    assert event.type
    assert isinstance(event.schema, str)


@given(
    st.text(min_size=1),
    st.text(min_size=1),
    st.dictionaries(st.text(), json_values.filter(lambda value: value == value)),
)
def test_from_json_reads_what_json_wrote(event_id: str, event_type: str, body: Any) -> None:
    header = {"event_id": event_id, "event_type": event_type}
    envelope = {"schema": "2.0", "header": header, "event": body}
    try:
        text = json.dumps(envelope, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # NaN inside, or a lone surrogate: no JSON
        return
    event = Event.from_json(text)
    assert (event.id, event.type) == (event_id, event_type)
    assert json.loads(json.dumps(event.body)) == json.loads(json.dumps(body))


def test_an_event_survives_pickling_with_its_payload(event: Callable[..., Event]) -> None:
    received = event(message={"message_id": "om_1"})
    copy = pickle.loads(pickle.dumps(received))  # noqa: S301
    assert copy == received
    assert received.payload.message.message_id == "om_1"
    assert pickle.loads(pickle.dumps(received)).payload == received.payload  # noqa: S301


def test_an_event_keeps_bodies_out_of_its_repr(event: Callable[..., Event]) -> None:
    received = event(message={"content": "private"})
    assert received.payload
    assert "private" not in repr(received)
    assert "vt" not in repr(received)
    assert "ev-1" in repr(received)


def test_the_payload_is_validated_once(event: Callable[..., Event]) -> None:
    received = event()
    assert received.payload is received.payload
