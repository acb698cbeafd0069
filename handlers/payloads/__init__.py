"""Typed bodies of well-known events, one module a domain. Types without a model work as well."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from handlers.loggers import get_logger
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

log = get_logger("handlers.payloads")

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

    A field whose value has an unexpected shape holds that value as it came; the log says so once.
    """
    unexpected: list[str] = []
    payload = payload_model(event_type).model_validate(dict(body), context=unexpected)
    for field in unexpected:
        tell_unexpected(event_type, field)
    return payload


@lru_cache(maxsize=1024)
def tell_unexpected(event_type: str, field: str) -> None:
    """Warn of a field; once, as the cache remembers each."""
    log.warning(
        "payload.unexpected",
        event_type=event_type,
        field=field,
        hint="the payload holds the value as it came; report its shape to the project",
    )
