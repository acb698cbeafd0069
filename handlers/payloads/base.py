"""How leniently every payload model reads. No event type is described here.

Feishu leaves fields out, sends null or "" for them, and changes between 7 and "7". So: null is the
same as absent, absent text is "", an absent number None, an absent object an empty one, and
unknown fields are kept. A value of an altogether different shape is an error, so that the event
ends as a visible dead letter instead of being handled as if it were empty.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


class Part(BaseModel):
    """An object inside a body."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        coerce_numbers_to_str=True,
        # Errors go to logs and dead letters; what people wrote must not.
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class Payload(Part):
    """A body of an event type that has no model: its fields are attributes as they came."""


def _number(value: Any) -> Any:
    return None if value == "" else value


Number = Annotated[int | None, BeforeValidator(_number)]
"""A whole number that may come as text."""


class UserId(Part):
    """The three ids of a person; `user_id` only comes with the app's permission for it."""

    open_id: str = ""
    union_id: str = ""
    user_id: str = ""
