"""Base classes of payload models, with the rules by which all of them read a body.

Feishu leaves fields out or sends null or "" for them; it sends 7 or "7", one value or a list of it,
one id of a person or an object with all three. The models read these variants alike: an absent text
is "", an absent number None, an absent object an empty one, an absent list an empty tuple. Fields
that the model does not name are kept as they are.

A field with a value of any other shape does not fail the event: the field keeps the value, and
`parse` logs `payload.unexpected` once for it.
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
        # Errors go to logs and dead letters, where texts that people wrote must not be.
        hide_input_in_errors=True,
        # The text below a field is its description in the JSON schema.
        use_attribute_docstrings=True,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo) -> Any:
        if data == []:  # some of Feishu's services write an empty object so
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
            # Nested objects handle their own errors: these are errors of fields of this object.
            odd = {str(each["loc"][0]) for each in error.errors(include_url=False)}
        part = handler({name: value for name, value in given.items() if name not in odd})
        for name in odd:
            part.__dict__[fields[name]] = given[name]
            if info.context is not None:
                info.context.append(f"{cls.__name__}.{name}")
        return part


@cache
def _fields(model: type[Part]) -> Mapping[str, str]:
    """JSON name -> Python name of the fields of a model."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


class Payload(Part):
    """The body of an event. Types without a model use it as it is: any fields, as attributes."""


class PayloadV1(Payload):
    """The body of a 1.0 event, which holds what a 2.0 envelope has in its header."""

    app_id: str = ""
    tenant_key: str = ""
    type: str = ""


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [item for item in value if item is not None]
    return [] if value == {} else [value]


Items = Annotated[tuple[ItemT, ...], BeforeValidator(_listed)]
"""A list. A single value is read as a list of one; null items are left out."""


def _texts(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: text for name, text in value.items() if text is not None}


Texts = Annotated[dict[str, str], BeforeValidator(_texts)]
"""Texts by name, such as a chat's name by language."""

_KINDS_OF_ID = {"ou_": "open_id", "on_": "union_id"}


class UserId(Part):
    """The three ids of a person; `user_id` is there only if the app has the permission for it."""

    open_id: str = ""
    union_id: str = ""
    user_id: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_one_id(cls, data: Any) -> Any:
        """Feishu: some events give a single id, whose first letters tell which it is."""
        if not isinstance(data, str):
            return data
        return {_KINDS_OF_ID.get(data[:3], "user_id"): data} if data != "null" else {}
