"""What the local Feishu knows of one event that it owes."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flybridge.bridge.errors import EnvelopeInvalid
from flybridge.bridge.protocol.envelope import header as envelope_header

State = Literal["owed", "acked", "given_up"]
Ending = Literal["in_flight", "acked", "nacked", "timed_out", "cut", "unreachable"]

CALLBACKS = frozenset({"card.action.trigger", "url.preview.get"})
"""Feishu: callbacks are pushed once and never again."""


@dataclass(slots=True)
class Attempt:
    """One push of one event to one connection."""

    time: float
    """Seconds of `time.monotonic()`, which all processes of a machine share."""
    connection: str
    """The connection's id; empty when nobody was connected."""
    message_id: str
    """The header of that name, new for every attempt."""
    ending: Ending = "in_flight"
    code: int | None = None
    """What the client answered: 200, 500, …; None without an answer."""
    ack: bytes = b""
    """The payload of the answer, e.g. `{"code":200,"data":"<base64>"}`."""
    biz_rt: str | None = None
    answered: float | None = None


@dataclass(slots=True, eq=False)
class Push:
    """An event that the local Feishu owes to its app until it is acked or given up."""

    event_id: str
    event_type: str
    payload: bytes
    kind: str
    """The frame header `type`: `event` or `card`."""
    state: State = "owed"
    attempts: list[Attempt] = field(default_factory=list)
    climbed: int = 0
    """Rungs of the ladder used so far."""
    due: float | None = None
    """When the next attempt starts; None while one is in flight or the event is settled."""
    copies: int = 1
    """Deliveries of the next attempt."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acked(self) -> bool:
        return self.state == "acked"

    @property
    def in_flight(self) -> bool:
        return any(attempt.ending == "in_flight" for attempt in self.attempts)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is acked (True) or given up (False).

        Raises:
            TimeoutError: after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            await self.settled.wait()
        return self.acked


def push_of(envelope: Mapping[str, Any] | bytes, *, kind: str = "event") -> Push:
    """The push of an envelope; bytes are sent as they are, readable or not.

    Where the envelope has no readable id the event gets a made-up one.
    """
    payload = envelope if isinstance(envelope, bytes) else _json(envelope)
    try:
        header = envelope_header(payload)
    except EnvelopeInvalid:
        return Push(f"local-{uuid.uuid4().hex}", "", payload, kind)
    return Push(header.event_id, header.event_type, payload, kind)


def _json(envelope: Mapping[str, Any]) -> bytes:
    text = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
    # Half of a surrogate pair has no UTF-8; its escape is what Feishu sends, too.
    return text.encode("utf-8", "backslashreplace")
