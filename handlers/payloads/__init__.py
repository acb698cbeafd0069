"""Models for the bodies of well-known events, one module per domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, Union

from pydantic import BaseModel, TypeAdapter, ValidationError

from flybridge.handlers.errors import PayloadInvalid
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.payloads import (
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
from flybridge.handlers.payloads.base import Payload
from flybridge.handlers.types import canonical

__all__ = ["MODELS", "Payload", "names", "parse", "parse_as", "payload_model"]

log = get_logger(__name__)

MODELS: Mapping[str, type[Payload]] = {
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
"""Event type -> the model of its body."""

_MOST_FIELDS = 5
"""The most fields that an error names: it goes to a log line and to a dead letter."""


def payload_model(event_type: str) -> type[Payload]:
    """The model of an event type; `Payload`, which accepts any fields, if there is none."""
    return MODELS.get(canonical(event_type), Payload)


def parse(event_type: str, body: Mapping[str, Any]) -> Payload:
    """Read a body as the model of its event type.

    A field whose value has an unexpected shape keeps that value; `payload.unexpected` is logged
    once for it.
    """
    unexpected: list[str] = []
    payload = payload_model(event_type).model_validate(dict(body), context=unexpected)
    for field in unexpected:
        tell_unexpected(event_type, field)
    return payload


def parse_as(
    models: tuple[type[BaseModel], ...], event_type: str, body: Mapping[str, Any]
) -> BaseModel:
    """Read a body as a model of the user's choice; of several models the one that fits best.

    Args:
        models: one, or several for a union.
        event_type: the type of the event, for the error.
        body: the `event` object.

    Raises:
        PayloadInvalid: the body does not fit; the message names fields, never their values.
    """
    unexpected: list[str] = []
    try:
        payload: BaseModel = _adapter(models).validate_python(dict(body), context=unexpected)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    else:
        for field in unexpected:
            tell_unexpected(event_type, field)
        return payload
    # Not in the `except` block: a chained error would show values of the body in the traceback.
    fields = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found]
    more = f" and {len(fields) - _MOST_FIELDS} more" if len(fields) > _MOST_FIELDS else ""
    raise PayloadInvalid(
        f"the body of {event_type} does not fit {names(models)}: "
        f"{'; '.join(fields[:_MOST_FIELDS])}{more}; change the model, then replay the dead letter"
    )


@cache
def _adapter(models: tuple[type[BaseModel], ...]) -> TypeAdapter[Any]:
    union: Any = Union[models]  # noqa: UP007 - the members are known at run time only
    return TypeAdapter(union)


def names(models: Iterable[type[BaseModel]]) -> str:
    """What stands in the brackets of `Event[…]` for these models."""
    return " | ".join(model.__name__ for model in models)


@lru_cache(maxsize=1024)
def tell_unexpected(event_type: str, field: str) -> None:
    """Warn of a field with an unexpected value; once, because the cache remembers it."""
    log.warning(
        "payload.unexpected",
        event_type=event_type,
        field=field,
        hint="the payload holds the value as Feishu sent it; report its shape to the project",
    )
