"""How leniently every payload model reads. No event type is described here.

Feishu leaves fields out, sends null or "" for them, and changes between 7 and "7". So: null and ""
are the same as absent, absent text is "", an absent number None, an absent object an empty one, and
unknown fields are kept as they came. A value of an altogether different shape is an error, so that
the event ends as a visible dead letter instead of being handled as if it were empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

ItemT = TypeVar("ItemT")


class Part(BaseModel):
    """An object inside a body."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        coerce_numbers_to_str=True,
        # Errors go to logs and dead letters; what people wrote must not.
        hide_input_in_errors=True,
        # What stands under a field describes it in the JSON schema.
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _names(cls)
        return {
            name: value
            for name, value in data.items()
            if name not in known or value not in (None, "")
        }


@cache
def _names(model: type[Part]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


class Payload(Part):
    """The body of an event; of a type without a model: any fields, as attributes."""


class PayloadV1(Payload):
    """A v1 body; it says itself what v2 envelopes say in their header."""

    app_id: str = ""
    tenant_key: str = ""
    type: str = ""


def _without_nulls(value: Any) -> Any:
    return [item for item in value if item is not None] if isinstance(value, list) else value


Items = Annotated[tuple[ItemT, ...], BeforeValidator(_without_nulls)]
"""A list; null among its items is the same as absent."""


def _texts(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: text for name, text in value.items() if text is not None}


Texts = Annotated[dict[str, str], BeforeValidator(_texts)]
"""Texts by name, such as a chat's name by language."""


class UserId(Part):
    """The three ids of a person; `user_id` only comes with the app's permission for it."""

    open_id: str = ""
    union_id: str = ""
    user_id: str = ""
