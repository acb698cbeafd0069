"""One Feishu event, as handlers see it. It does not know how the event came here.

Feishu has two envelopes. v2: `schema`, `header` and `event`. v1: `uuid`, `ts` and `event`, whose
`type`, `app_id` and `tenant_key` stand among the fields of the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeGuard

import msgspec

from handlers.errors import EventInvalid
from handlers.timestamps import instant

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Event:
    """An event of Feishu; equal when every part is, and safe to pickle."""

    id: str
    """Unique per event: v2 `header.event_id`, v1 the outer `uuid`."""
    type: str
    """As Feishu sent it, e.g. `im.message.receive_v1`."""
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_at: datetime | None
    """UTC; None when the envelope gives no readable time."""
    # Bodies hold what people wrote: they stay out of repr(), and so out of logs.
    body: Mapping[str, Any] = field(repr=False)
    """The `event` object. Shared by all handlers of the event: do not change it."""
    envelope: Mapping[str, Any] = field(repr=False)
    """The whole JSON."""
    _payload: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def payload(self) -> Any:
        """The body as the pydantic model of its type, validated at first use.

        Types without a model give a bare `Payload` with the body's fields as attributes. It is
        typed `Any`; annotate what you expect: `payload: MessageReceived = event.payload`.

        Raises:
            EventInvalid: the body has another shape than its type's; `body` still holds it.
        """
        if self._payload is None:
            # Here, so that whoever never asks for a payload never loads the models.
            from handlers.payloads import parse

            object.__setattr__(self, "_payload", parse(self.type, self.body))
        return self._payload

    @classmethod
    def from_json(cls, envelope: bytes, event_id: str = "") -> Event:
        """Decode Feishu's JSON.

        Args:
            envelope: the JSON.
            event_id: what the bridge published the event under; some envelopes, such as those of
                `url.preview.get`, carry no id. Empty: take the envelope's.

        Raises:
            EventInvalid: not JSON, deeper than the interpreter's stack, or not an envelope.
        """
        try:
            decoded = _decode(envelope)
        # ValueError: bad syntax or UTF-8, lone surrogates, NaN, numbers out of range.
        except (ValueError, RecursionError) as error:
            raise EventInvalid(f"not JSON that can be decoded: {error}") from error
        return cls.from_envelope(decoded, event_id)

    @classmethod
    def from_envelope(cls, envelope: Mapping[str, Any], event_id: str = "") -> Event:
        """Read a decoded v2 or v1 envelope.

        Raises:
            EventInvalid: it is neither, or has no event id or no event type.
        """
        if not _is_object(envelope):
            raise EventInvalid(f"an envelope is a JSON object, this is {type(envelope).__name__}")
        body = envelope.get("event")
        if body is None:
            body = {}
        if not _is_object(body):
            raise EventInvalid(f"`event` must be an object, this is {type(body).__name__}")
        if envelope.get("schema"):
            return cls._from_v2(envelope, body, event_id)
        return cls._from_v1(envelope, body, event_id)

    @classmethod
    def _from_v2(cls, envelope: Mapping[str, Any], body: Mapping[str, Any], event_id: str) -> Event:
        header = envelope.get("header")
        if not _is_object(header):
            raise EventInvalid("a v2 envelope without its `header` object")
        return cls(
            event_id or _required(header, "event_id", "header.event_id"),
            _required(header, "event_type", "header.event_type"),
            _text(header, "app_id"),
            _text(header, "tenant_key"),
            _text(envelope, "schema"),
            instant(header.get("create_time")),
            body,
            envelope,
        )

    @classmethod
    def _from_v1(cls, envelope: Mapping[str, Any], body: Mapping[str, Any], event_id: str) -> Event:
        if "encrypt" in envelope:
            raise EventInvalid("an encrypted webhook envelope; decrypt it first")
        if envelope.get("type") == "url_verification":
            raise EventInvalid("a webhook's url_verification, which is no event; do not publish it")
        return cls(
            # Feishu: `event.uuid` of approvals is the creator's own id and may repeat.
            event_id or _required(envelope, "uuid", "uuid"),
            _required(body, "type", "event.type"),
            _text(body, "app_id"),
            _text(body, "tenant_key"),
            "1.0",
            instant(envelope.get("ts")),
            body,
            envelope,
        )


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    # The abstract class takes its time to say yes, and all but tests give dicts.
    return type(value) is dict or isinstance(value, Mapping)


def _required(source: Mapping[str, Any], key: str, path: str) -> str:
    value = source.get(key)
    if isinstance(value, str) and value:
        return value
    raise EventInvalid(f"`{path}` must be a text that is not empty, this is {type(value).__name__}")


def _text(source: Mapping[str, Any], key: str) -> str:
    value = source.get(key)
    return value if isinstance(value, str) else ""
