"""Turns what is wrong with settings into sentences that say what to do.

A field's description is the second half of its sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flybridge.bridge.config.environment import PREFIX, variable
from flybridge.bridge.config.layers import Given

_VARIABLE = re.compile(rf"{PREFIX}[A-Z_]+")


class Problem(ValueError):
    """A complete message, one sentence per line. Other errors are told by the field description."""


def require(condition: object) -> None:
    """Refuse a value, with the field's description as the reason."""
    if not condition:
        raise ValueError


def sentences(
    error: ValidationError, fields: Mapping[str, FieldInfo], given: Mapping[str, Given]
) -> list[str]:
    """Every problem that pydantic found, without secrets.

    Args:
        given: by setting; sentences use the names that stand there, else the variables.
    """
    told = "\n".join(_sentences(found, fields, given) for found in error.errors())
    names = {variable(setting): each.written.shown for setting, each in given.items()}
    return _VARIABLE.sub(lambda found: names.get(found[0], found[0]), told).splitlines()


def _sentences(
    found: ErrorDetails, fields: Mapping[str, FieldInfo], given: Mapping[str, Given]
) -> str:
    setting = str(found["loc"][0])
    field, name = fields[setting], variable(setting)
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, Problem):
        return str(cause)
    if found["type"] == "missing":
        return f"{name} is not set; {field.description}."
    value = given[setting].written.value if setting in given else found["input"]
    advice = given[setting].advice if setting in given else ""
    return f"{name} {_shown(value, field)}; {advice or field.description}."


def _shown(value: Any, field: FieldInfo) -> str:
    """The value, unless it may be a secret, as a mapping or a list may."""
    secret = not field.repr or field.annotation is SecretStr
    if secret or not isinstance(value, str | int | float):
        return "cannot be used"
    return f"is {value!r}"
