"""Encodes and decodes JSON text messages, as development servers and gateways speak them.

Feishu itself sends none.

An event becomes a 2.0 envelope as Feishu would have sent it: `event_id`, `event_type`, `app_id` and
`tenant_key` go into its header as they are, `create_time` turns from seconds into text of
milliseconds, and `event` keeps its bytes. What already is a 1.0 or 2.0 envelope stays one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import msgspec

from flybridge.bridge.errors import FrameInvalid
from flybridge.handlers.envelope.lenient_json import mended

_Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Ping:
    """Wants a pong."""

    kind: ClassVar[str] = "ping"


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping."""

    kind: ClassVar[str] = "pong"
    timestamp: int | None = None
    """When it was sent, as far as it says so; Unix seconds."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Tells that the sender is alive; it wants no answer."""

    kind: ClassVar[str] = "heartbeat"
    interval: int | None = None
    """Seconds until the next one, more or less."""
    status: str = "ok"
    timestamp: int | None = None
    """When it was sent, as far as it says so; Unix seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. The dialect has no ack for it."""

    kind: ClassVar[str] = "event"
    envelope: bytes = field(repr=False)
    """A 1.0 or 2.0 envelope, if it is one at all."""


@dataclass(frozen=True, slots=True)
class Auth:
    """A client's request to be let in."""

    kind: ClassVar[str] = "auth"
    token: str = field(repr=False)
    app_id: str = ""
    event_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class AuthReply:
    """The answer to an `Auth`."""

    kind: ClassVar[str] = "auth"
    code: int
    """0: welcome."""
    said: str = ""


Message = Ping | Pong | Heartbeat | Event | Auth | AuthReply


class _Type(msgspec.Struct, gc=False):
    type: _Scalar = None
    schema: _Scalar = None


class _HeartbeatData(msgspec.Struct, gc=False, omit_defaults=True):
    timestamp: _Scalar = None
    interval: _Scalar = None
    status: _Scalar = None


class _PongBody(msgspec.Struct, gc=False):
    timestamp: _Scalar = None


class _HeartbeatBody(msgspec.Struct, gc=False):
    timestamp: _Scalar = None
    data: _HeartbeatData | None = None


class _EventData(msgspec.Struct, gc=False):
    event_id: _Scalar = None
    event_type: _Scalar = None
    app_id: _Scalar = None
    tenant_key: _Scalar = None
    create_time: _Scalar = None
    event: msgspec.Raw = msgspec.Raw(b"{}")


class _EventBody(msgspec.Struct, gc=False):
    data: _EventData


class _AuthData(msgspec.Struct, gc=False):
    app_access_token: str = ""
    app_id: str | None = None
    event_url: str | None = None


class _AuthBody(msgspec.Struct, gc=False):
    data: _AuthData | None = None
    code: int | None = None
    msg: _Scalar = None


_Body = TypeVar("_Body")


def decode(text: str) -> Message:
    """Read one message.

    Raises:
        FrameInvalid: not a JSON object, of an unknown type, or with fields that do not fit the
            type.
    """
    try:
        raw = text.encode()
        try:
            return _read(raw)
        except ValueError:
            return _read(mended(raw))
    except (ValueError, RecursionError):
        # The text may hold a token, and so may what the library says about it.
        raise FrameInvalid(f"{len(text)} characters are no message of the text dialect") from None


def _read(raw: bytes) -> Message:
    kind = _kind(_as(raw, _Type))
    read = _READERS.get(kind)
    if read is None:
        raise FrameInvalid(f"a text message of type {kind[:32]!r}, which nobody knows")
    return read(raw)


def encode(message: Message, timestamp: int) -> str:
    """Write one message; `timestamp` is in Unix seconds. Of an event the envelope is written."""
    match message:
        case Ping():
            return _json({"type": "ping", "timestamp": timestamp})
        case Pong():
            return _json({"type": "pong", "timestamp": timestamp})
        case Heartbeat(interval=interval, status=status):
            data = _given(timestamp=timestamp, interval=interval, status=status)
            return _json({"type": "heartbeat", "timestamp": timestamp, "data": data})
        case Auth(token, app_id, event_url):
            data = _given(app_access_token=token, app_id=app_id, event_url=event_url)
            return _json({"type": "auth", "timestamp": timestamp, "data": data})
        case AuthReply(code, said):
            return _json({"type": "auth", "timestamp": timestamp, "code": code, "msg": said})
        case Event(envelope):
            return envelope.decode(errors="replace")


def _kind(root: _Type) -> str:
    # Before the type: an envelope of 2.0 has none, and its header says more.
    if root.schema == "2.0":
        return "envelope"
    return root.type.lower() if isinstance(root.type, str) else ""


def _envelope(raw: bytes) -> Event:
    return Event(raw)


def _event(raw: bytes) -> Event:
    data = _as(raw, _EventBody).data
    header = _given(
        event_id=data.event_id,
        event_type=data.event_type,
        create_time=_milliseconds(data.create_time),
        app_id=data.app_id,
        tenant_key=data.tenant_key,
    )
    return Event(msgspec.json.encode({"schema": "2.0", "header": header, "event": data.event}))


def _heartbeat(raw: bytes) -> Heartbeat:
    body = _as(raw, _HeartbeatBody)
    data = body.data or _HeartbeatData()
    return Heartbeat(
        _whole(data.interval),
        data.status if isinstance(data.status, str) else "",
        _whole(data.timestamp) or _whole(body.timestamp),
    )


def _pong(raw: bytes) -> Pong:
    return Pong(_whole(_as(raw, _PongBody).timestamp))


def _whole(value: _Scalar) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _auth(raw: bytes) -> Auth | AuthReply:
    body = _as(raw, _AuthBody)
    if body.code is not None:
        return AuthReply(body.code, body.msg if isinstance(body.msg, str) else "")
    if body.data is None:
        raise FrameInvalid("an auth message with neither a code nor data")
    return Auth(body.data.app_access_token, body.data.app_id or "", body.data.event_url or "")


_READERS: dict[str, Callable[[bytes], Message]] = {
    "ping": lambda raw: Ping(),
    "pong": _pong,
    "heartbeat": _heartbeat,
    "event": _event,
    "event_callback": _envelope,
    "envelope": _envelope,
    "auth": _auth,
}


def _as(raw: bytes, kind: type[_Body]) -> _Body:
    return msgspec.json.decode(raw, type=kind)


def _milliseconds(seconds: _Scalar) -> _Scalar:
    """As Feishu writes it. What is no whole number stays as it is."""
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        return seconds
    return str(seconds * 1000)


def _given(**fields: _Scalar) -> dict[str, _Scalar]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _json(fields: dict[str, object]) -> str:
    return msgspec.json.encode(fields).decode()
