"""The event that a handler gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeGuard

from typing_extensions import TypeVar

from flybridge.handlers.envelope.header import (
    CHALLENGE,
    ENCRYPTED,
    Header,
    check_schema,
    read_v1,
    read_v2,
)
from flybridge.handlers.envelope.lenient_json import decode
from flybridge.handlers.envelope.timestamps import moment
from flybridge.handlers.errors import EventInvalid

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Event"]

PayloadT_co = TypeVar("PayloadT_co", bound="BaseModel", covariant=True, default=Any)
ModelT = TypeVar("ModelT", bound="BaseModel")
Model = type[ModelT]  # in the class `type` is a field


@dataclass(frozen=True, slots=True)
class Event(Generic[PayloadT_co]):
    """An event of Feishu. Events are equal when all their fields are; they can be pickled.

    `Event[MessageReceived]` in the annotation of a handler names the model of its payload.
    """

    id: str
    """Unique per event: v2 `header.event_id`, v1 the outer `uuid`."""
    type: str
    """As Feishu sent it, e.g. `im.message.receive_v1`."""
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_at: datetime | None
    """UTC; None if the envelope has no readable time."""
    # Bodies hold what people wrote: repr() leaves them out, so that logs do not show them.
    body: Mapping[str, Any] = field(repr=False)
    """The `event` object of the envelope. All handlers share it: do not change it."""
    envelope: Mapping[str, Any] = field(repr=False)
    """The whole decoded JSON; shared, too."""
    _payload: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def payload(self) -> PayloadT_co:
        """The body as a pydantic model, read at first use.

        It is the model that the handler's annotation names, else the model of the event's type;
        types without a model give a bare `Payload` with the body's fields as attributes. `Event`
        without brackets has a payload of type `Any`. In the models of this package a field whose
        value has an unexpected shape keeps that value, and `payload.unexpected` is logged.
        """
        if self._payload is None:
            # Imported here: handlers that never ask for a payload do not load the models.
            from flybridge.handlers.payloads import parse

            object.__setattr__(self, "_payload", parse(self.type, self.body))
        payload: PayloadT_co = self._payload
        return payload

    def read_as(self, model: Model[ModelT]) -> Event[ModelT]:
        """The same event with its body read as another model.

        Args:
            model: a subclass of `pydantic.BaseModel`. A subclass of
                `flybridge.handlers.payloads.Payload` accepts Feishu's variants of a value as the
                models of that package do.

        Raises:
            PayloadInvalid: the body does not fit the model.
        """
        from flybridge.handlers.payloads import parse_as  # imported here, as above

        return with_payload(self, parse_as((model,), self.type, self.body))

    @classmethod
    def from_json(cls, envelope: bytes, event_id: str = "") -> Event[Any]:
        """Decode Feishu's JSON.

        Args:
            envelope: the JSON.
            event_id: the id under which the bridge published the event, because some envelopes,
                such as those of `url.preview.get`, have none. Empty: take the envelope's.

        Raises:
            EventInvalid: it is not JSON, nested too deep, or not an envelope.
        """
        try:
            decoded = decode(envelope)
        # ValueError: bad syntax, NaN, numbers out of range.
        except (ValueError, RecursionError) as error:
            raise EventInvalid(f"not JSON that can be decoded: {error}") from error
        return cls.from_envelope(decoded, event_id)

    @classmethod
    def from_envelope(cls, envelope: Mapping[str, Any], event_id: str = "") -> Event[Any]:
        """Read a decoded envelope, 2.0 or 1.0.

        Raises:
            EventInvalid: it is not an envelope, or has no event id or no event type.
        """
        if not _is_object(envelope):
            raise EventInvalid(f"an envelope is a JSON object, this is {type(envelope).__name__}")
        body = envelope.get("event")
        if body is None:
            body = {}
        if not _is_object(body):
            raise EventInvalid(f"`event` must be an object, this is {type(body).__name__}")
        header = _header(envelope, body)
        if not (event_id or header.event_id):
            raise EventInvalid("an envelope without `header.event_id` or `uuid`; give an event_id")
        return cls(
            event_id or header.event_id,
            header.event_type,
            header.app_id,
            header.tenant_key,
            header.schema,
            moment(header.created_us),
            body,
            envelope,
        )


def with_payload(event: Event, payload: BaseModel) -> Event:
    """A copy of the event with another payload."""
    copy = replace(event)
    object.__setattr__(copy, "_payload", payload)
    return copy


def _header(envelope: Mapping[str, Any], body: Mapping[str, Any]) -> Header:
    check_schema(envelope.get("schema"))
    header = envelope.get("header")
    if _is_object(header) and header:
        found = read_v2(header)
    else:
        found = read_v1(envelope.get("uuid"), envelope.get("ts"), body)
    if found.event_type:
        return found
    if "encrypt" in envelope:
        raise EventInvalid(ENCRYPTED)
    if envelope.get("type") == "url_verification":
        raise EventInvalid(CHALLENGE)
    raise EventInvalid(
        "neither `header.event_type` nor `event.type` is there; this is not an event"
    )


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    # isinstance() with an abstract class is slow, and nearly all values are dicts.
    return type(value) is dict or isinstance(value, Mapping)
