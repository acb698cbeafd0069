"""The rules by which every payload model reads. No event type is described here.

Feishu leaves fields out, sends null or "" for them, changes between 7 and "7", between one value
and a list of it, and between a person's id and an object with all three. All of that is read alike:
absent text is "", an absent number None, an absent object an empty one, an absent list an empty
tuple; fields that the model does not name are kept as they came.

A field with a value of an altogether different shape does not cost the event: it keeps the value
as it came, and `parse` logs `payload.unexpected` once for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

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

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo) -> Any:
        if data == []:  # an empty object, as some of Feishu's services write it
            data = {}
        if not isinstance(data, dict):
            return handler(data)
        fields = _fields(cls)
        given = {
            name: value
            for name, value in data.items()
            if name not in fields or value not in (None, "")
        }
        try:
            return handler(given)
        except ValidationError as error:
            # Nested objects have read themselves: what fails here are fields of this one.
            odd = {str(each["loc"][0]) for each in error.errors(include_url=False)}
        part = handler({name: value for name, value in given.items() if name not in odd})
        for name in odd:
            part.__dict__[fields[name]] = given[name]
            if info.context is not None:
                info.context.append(f"{cls.__name__}.{name}")
        return part


@cache
def _fields(model: type[Part]) -> Mapping[str, str]:
    """The names of a model's fields in Python, by their names in JSON."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


class Payload(Part):
    """The body of an event; of a type without a model: any fields, as attributes."""


class PayloadV1(Payload):
    """A 1.0 body; it says itself what 2.0 envelopes say in their header."""

    app_id: str = ""
    tenant_key: str = ""
    type: str = ""


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [item for item in value if item is not None]
    return [] if value == {} else [value]


Items = Annotated[tuple[ItemT, ...], BeforeValidator(_listed)]
"""A list; null among its items is the same as absent, one value by itself a list of it."""


def _texts(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: text for name, text in value.items() if text is not None}


Texts = Annotated[dict[str, str], BeforeValidator(_texts)]
"""Texts by name, such as a chat's name by language."""

_KINDS_OF_ID = {"ou_": "open_id", "on_": "union_id"}


class UserId(Part):
    """The three ids of a person; `user_id` only comes with the app's permission for it."""

    open_id: str = ""
    union_id: str = ""
    user_id: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_one_id(cls, data: Any) -> Any:
        """Feishu: some events name a person by one id, whose first letters tell which."""
        if not isinstance(data, str):
            return data
        return {_KINDS_OF_ID.get(data[:3], "user_id"): data} if data != "null" else {}
