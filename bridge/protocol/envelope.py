"""Reads the header of an envelope without decoding the event: id, type, app, tenant and time.

Fields are read by the rules of `flybridge.handlers.envelope.header`, as handlers' events are.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from flybridge.bridge.errors import EnvelopeInvalid
from flybridge.handlers.envelope.header import CHALLENGE, ENCRYPTED, check_schema, read_v1, read_v2
from flybridge.handlers.envelope.header import Header as Fields
from flybridge.handlers.envelope.lenient_json import mended
from flybridge.handlers.errors import EventInvalid
from flybridge.handlers.types import canonical

MAX_ENVELOPE = 10 * 1024 * 1024
"""Bytes. Feishu's largest events are a few hundred KiB."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What an envelope says about its event."""

    event_id: str
    """A digest of the bytes if the envelope has no id (`url.preview.get` has none)."""
    event_type: str
    """Feishu's own name: gateways of the text dialect may send an alias."""
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_at: int
    """Unix ms; 0 when the envelope gives none that can be read."""


class _Envelope(msgspec.Struct, gc=False):
    schema: str | int | float | None = None
    header: dict[str, Any] | None = None
    uuid: Any = None
    ts: Any = None
    type: Any = None
    encrypt: msgspec.Raw = msgspec.Raw()
    event: msgspec.Raw = msgspec.Raw(b"{}")


class _V1Event(msgspec.Struct, gc=False):
    type: Any = None
    app_id: Any = None
    tenant_key: Any = None


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_v1 = msgspec.json.Decoder(_V1Event | None).decode


def header(payload: bytes) -> Header:
    """Read the header of an envelope, in time linear in its length.

    Raises:
        EnvelopeInvalid: `too_large`, `decode` (not JSON, nested too deep), `encrypted` or `schema`
            (neither 1.0 nor 2.0).
    """
    if len(payload) > MAX_ENVELOPE:
        raise EnvelopeInvalid("too_large", f"{len(payload)} bytes; the limit is {MAX_ENVELOPE}")
    try:
        fields = _fields(payload)
    except (EventInvalid, msgspec.ValidationError) as error:
        raise EnvelopeInvalid("schema", f"neither a 1.0 nor a 2.0 envelope: {error}") from None
    except ValueError as error:
        raise EnvelopeInvalid("decode", f"not readable as JSON: {error}") from None
    except RecursionError:
        raise EnvelopeInvalid("decode", "JSON nested too deep") from None
    return Header(
        fields.event_id or _derived_id(payload),
        canonical(fields.event_type),
        fields.app_id,
        fields.tenant_key,
        fields.schema,
        (fields.created_us or 0) // 1000,
    )


def _fields(payload: bytes) -> Fields:
    try:
        # The decoder skips the event without a look at its text, which workers must read too.
        payload.decode()
        return _read(payload)
    except msgspec.ValidationError:
        raise
    except ValueError:
        return _read(mended(payload))


def _read(payload: bytes) -> Fields:
    envelope = _decode(payload)
    check_schema(envelope.schema)
    if envelope.header:
        found = read_v2(envelope.header)
    else:
        event = _decode_v1(envelope.event) or _V1Event()
        found = read_v1(envelope.uuid, envelope.ts, msgspec.structs.asdict(event))
    if found.event_type:
        return found
    if bytes(envelope.encrypt):
        raise EnvelopeInvalid("encrypted", ENCRYPTED)
    if envelope.type == "url_verification":
        raise EnvelopeInvalid("schema", CHALLENGE)
    raise EventInvalid("it has neither `header.event_type` nor `event.type`; this is no event")


def _derived_id(payload: bytes) -> str:
    # The same push sent again has the same bytes, so it still has the same id.
    return "derived-" + hashlib.sha256(payload).hexdigest()
