"""The server's half of the text dialect: events out, answers to pings and auth."""

from __future__ import annotations

import json
import time

from flybridge.bridge.errors import EnvelopeInvalid, FrameInvalid
from flybridge.bridge.protocol import text_codec
from flybridge.bridge.protocol.envelope import header
from flybridge.bridge.protocol.text_codec import AuthReply, Message, Pong
from flybridge.handlers.envelope.lenient_json import decode

TOKEN_INVALID = 99_991_663
"""Feishu's code for a tenant token that is not valid; of a gateway any code but 0 is a refusal."""


def event(payload: bytes) -> str:
    """One push. A 2.0 envelope is taken apart as the dialect has it, all else goes as it is."""
    try:
        found = header(payload)
    except EnvelopeInvalid:
        return payload.decode(errors="replace")
    if found.schema != "2.0":
        return payload.decode(errors="replace")
    envelope = decode(payload)
    data = {
        "event_id": found.event_id,
        "event_type": envelope["header"]["event_type"],  # an alias stays one
        "app_id": found.app_id,
        "tenant_key": found.tenant_key,
        "create_time": found.created_at // 1000,
        "event": envelope.get("event"),
    }
    message = {"type": "event", "timestamp": int(time.time()), "data": data}
    return json.dumps(message, ensure_ascii=False)


def pong() -> str:
    """The answer to a ping."""
    return text_codec.encode(Pong(), int(time.time()))


def auth_reply(*, welcome: bool) -> str:
    """The answer to a client's auth."""
    reply = AuthReply(0, "success") if welcome else AuthReply(TOKEN_INVALID, "invalid token")
    return text_codec.encode(reply, int(time.time()))


def read(text: str) -> Message | None:
    """What a client said; None for what is no message."""
    try:
        return text_codec.decode(text)
    except FrameInvalid:
        return None
