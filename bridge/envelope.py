"""Reads from Feishu's JSON id, type, app, tenant and time. It leaves the event itself undecoded.

Feishu, schema 2.0: `{"schema":"2.0","header":{"event_id","event_type","app_id",…},"event":{…}}`
Feishu, schema 1.0: `{"uuid","ts","type":"event_callback","event":{"type","app_id","tenant_key",…}}`
The id of a 1.0 event is the outer `uuid`; an approval carries another one inside, which may repeat.
"""

from __future__ import annotations

import hashlib

import msgspec

from bridge.errors import EnvelopeInvalid
from handlers.types import canonical

MAX_ENVELOPE = 10 * 1024 * 1024
"""Bytes. Feishu's largest events are a few hundred KiB."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What an envelope says about its event."""

    event_id: str
    event_type: str
    """What Feishu really calls it: gateways of the text dialect may send an alias."""
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_at: int
    """Unix ms; 0 when the envelope gives none that can be read."""
    derived: bool = False
    """Without an id (`url.preview.get` has none), `event_id` is a digest of the payload."""


# A number where a string belongs must not cost us the event; a container would cost memory.
_Scalar = str | int | float | bool | None


class _V2Header(msgspec.Struct, gc=False):
    event_id: _Scalar = None
    event_type: _Scalar = None
    app_id: _Scalar = None
    tenant_key: _Scalar = None
    create_time: _Scalar = None
    event_create_time: _Scalar = None


class _V1Event(msgspec.Struct, gc=False):
    type: _Scalar = None
    app_id: _Scalar = None
    tenant_key: _Scalar = None


class _Envelope(msgspec.Struct, gc=False):
    schema: _Scalar = None
    header: _V2Header | None = None
    uuid: _Scalar = None
    ts: _Scalar = None
    encrypt: msgspec.Raw = msgspec.Raw()
    event: msgspec.Raw = msgspec.Raw(b"{}")


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_v1 = msgspec.json.Decoder(_V1Event).decode


def header(payload: bytes) -> Header:
    """Read the header of an envelope, in time linear in its length.

    Raises:
        EnvelopeInvalid: `too_large`, `decode` (not JSON, not UTF-8, nested too deep) or `schema`
            (neither 1.0 nor 2.0).
    """
    if len(payload) > MAX_ENVELOPE:
        raise EnvelopeInvalid("too_large", f"{len(payload)} bytes; the limit is {MAX_ENVELOPE}")
    try:
        # The decoder skips the event without a look at its text, which workers must read too.
        payload.decode()
        return _header(payload)
    except msgspec.ValidationError as error:
        raise EnvelopeInvalid("schema", f"neither a 1.0 nor a 2.0 envelope: {error}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise EnvelopeInvalid("decode", f"not readable as JSON: {error}") from None
    except RecursionError:
        raise EnvelopeInvalid("decode", "JSON nested too deep") from None


def _header(payload: bytes) -> Header:
    envelope = _decode(payload)
    if envelope.schema:
        return _from_v2(envelope, payload)
    if bytes(envelope.encrypt):
        raise EnvelopeInvalid("schema", "encrypted; only webhooks are, the long connection is not")
    return _from_v1(envelope, payload)


def _from_v2(envelope: _Envelope, payload: bytes) -> Header:
    schema, inner = _text(envelope.schema), envelope.header
    if schema != "2.0":
        raise EnvelopeInvalid("schema", f"schema {schema[:32]!r} is neither 1.0 nor 2.0")
    if inner is None or not inner.event_type:
        raise EnvelopeInvalid("schema", "a 2.0 envelope without header.event_type")
    created = inner.event_create_time if inner.create_time is None else inner.create_time
    event_id = _text(inner.event_id)
    return Header(
        event_id or _derived_id(payload),
        canonical(_text(inner.event_type)),
        _text(inner.app_id),
        _text(inner.tenant_key),
        "2.0",
        milliseconds(created),
        not event_id,
    )


def _from_v1(envelope: _Envelope, payload: bytes) -> Header:
    event = _decode_v1(envelope.event)
    if not event.type:
        raise EnvelopeInvalid("schema", "neither `schema` nor `event.type`; this is no event")
    event_id = _text(envelope.uuid)
    return Header(
        event_id or _derived_id(payload),
        canonical(_text(event.type)),
        _text(event.app_id),
        _text(event.tenant_key),
        "1.0",
        milliseconds(envelope.ts),
        not event_id,
    )


def milliseconds(value: _Scalar) -> int:
    """Unix ms from seconds (also decimal), ms or µs, told apart by size; 0 from anything else."""
    if value is None:
        return 0
    try:
        number = int(value)
    except (ValueError, OverflowError):
        number = 0
    if 10**11 <= number < 10**14:
        return number
    if 10**14 <= number < 10**17:
        return number // 1000
    return _from_seconds(value)


def _from_seconds(value: str | float) -> int:
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return 0
    return int(seconds * 1000) if 0 < seconds < 10**11 else 0


def _text(value: _Scalar) -> str:
    if type(value) is str:
        return value
    return "" if value is None else str(value)


def _derived_id(payload: bytes) -> str:
    # The same push sent again has the same bytes, so it still has the same id.
    return "derived-" + hashlib.sha256(payload).hexdigest()
