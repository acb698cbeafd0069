"""Typed bodies of well-known events, one module a domain. Types without a model work as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from handlers.errors import EventInvalid
from handlers.payloads import (
    application,
    approval,
    calendar,
    card,
    contact,
    drive,
    im,
    meeting_room,
    task,
    url,
    vc,
)
from handlers.payloads.base import Payload
from handlers.types import canonical

__all__ = ["Payload", "parse", "payload_model"]

_MODELS: dict[str, type[Payload]] = {
    **application.MODELS,
    **approval.MODELS,
    **calendar.MODELS,
    **card.MODELS,
    **contact.MODELS,
    **drive.MODELS,
    **im.MODELS,
    **meeting_room.MODELS,
    **task.MODELS,
    **url.MODELS,
    **vc.MODELS,
}


def payload_model(event_type: str) -> type[Payload]:
    """The model of a type; `Payload` itself, which takes any fields, when there is none."""
    return _MODELS.get(canonical(event_type), Payload)


def parse(event_type: str, body: Mapping[str, Any]) -> Payload:
    """Read a body as its type's model.

    Raises:
        EventInvalid: a field has another shape than its type's; the field is named, not its value.
    """
    try:
        return payload_model(event_type).model_validate(dict(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        raise EventInvalid(
            f"`event.{path}` of {event_type} has an unexpected shape: {first['msg']}; "
            "read event.body instead, and report the shape"
        ) from error
