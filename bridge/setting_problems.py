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

from bridge.environment import PREFIX, variable
from bridge.layers import Given

_VARIABLE = re.compile(rf"{PREFIX}[A-Z_]+")


class Problem(ValueError):
    """A whole sentence, or one a line; any other error is told by its field's description."""


def require(condition: object) -> None:
    """Refuse a value whose field description says all there is to say."""
    if not condition:
        raise ValueError


def sentences(
    error: ValidationError, fields: Mapping[str, FieldInfo], given: Mapping[str, Given]
) -> list[str]:
    """Every problem that pydantic found in these fields, without secrets.

    Args:
        fields: of the settings.
        given: by setting; under the names that stand there a sentence speaks of them, else by
            variable.
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
    """A mapping or a list may hold anything, secrets too."""
    secret = not field.repr or field.annotation is SecretStr
    if secret or not isinstance(value, str | int | float):
        return "cannot be used"
    return f"is {value!r}"
