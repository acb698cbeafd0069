"""Checks the paths of `ordered_by` and `dedup_by` against models and samples of the event types.

A misspelt path would find no value, so that nothing would be ordered and nothing skipped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registering.paths import location
from flybridge.handlers.types import KNOWN_TYPES, matches

log = get_logger(__name__)

NEAR = 0.8
"""Likeness, from 0 to 1, at which a name counts as a misspelling of one that exists."""

_HEADER = ("event_id", "event_type", "create_time", "token", "app_id", "tenant_key")


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a path finds no value in the events of a type."""

    event_type: str
    reason: str
    instead: str = ""
    """A similar path that finds one; empty if there is none."""
    holds_more: bool = False
    """Whether something else than a key is known to stand there, such as an object."""


def check_path(option: str, path: str, patterns: Iterable[str], where: str) -> None:
    """Refuse a path that is a mistake for one of the patterns; warn of an unknown one.

    Args:
        option: `ordered_by` or `dedup_by`.
        path: value of the option; `paths.location` can read it.
        patterns: the types and patterns of the registration, aliases resolved.
        where: `module:line` of the handler.

    Raises:
        RegistrationInvalid: the message names the right path, or what stands there.
    """
    for pattern in patterns:
        misses = _misses(path, pattern)
        if not misses:
            continue
        slips = [each for each in misses if each.instead or each.holds_more]
        miss = (slips or misses)[0]
        # A path from the top, `envelope.event.…`, is the author's word that Feishu sends it.
        if slips and not path.startswith("envelope.event."):
            raise RegistrationInvalid(
                f"{where}: {option}={path!r}, but in {miss.event_type} {miss.reason}; "
                f"{_advice(path, miss)}"
            )
        log.warning(
            "key.unknown",
            option=option,
            path=path,
            event_type=pattern,
            reason=miss.reason,
            where=where,
            hint="events without a text or whole number at this path are neither ordered nor "
            "skipped; see the fields of a type with: flybridge events TYPE --schema",
            **({"did_you_mean": miss.instead} if miss.instead else {}),
        )


def _advice(path: str, miss: Miss) -> str:
    advice = f"did you mean {miss.instead!r}?" if miss.instead else "name another field"
    if not path.startswith("body."):
        return advice
    spelt_out = path.replace("body.", "envelope.event.", 1)
    return f"{advice} (if Feishu does send a text or number there, write {spelt_out!r})"


def _misses(path: str, pattern: str) -> list[Miss]:
    """Why the path finds nothing, per type; empty if it does in one type, or nothing is known."""
    keys = location(path) or ()
    types = [pattern] if "*" not in pattern else sorted(KNOWN_TYPES)
    misses = []
    for event_type in types:
        if not matches(pattern, event_type):
            continue
        shape = _shape_of(event_type)
        if shape is None:
            continue
        miss = _miss(event_type, shape, keys)
        if miss is None:
            return []
        misses.append(miss)
    return misses


# What is known of a value: None if nothing is, a mapping for an object, else its kind.
_Shape = Mapping[str, Any] | str | None

_VALUE, _LIST, _SWITCH = "", "a list", "true or false"


def _miss(event_type: str, shape: _Shape, keys: tuple[str, ...]) -> Miss | None:
    """Follow the keys from the envelope; None if they lead to a value, or to something unknown."""
    root = shape
    for number, key in enumerate(keys):
        if shape is None:
            return None
        here = _written(keys[:number]) or "envelope"
        if not isinstance(shape, Mapping):
            reason = f"{here!r} is {shape or 'a text or number'}, not an object"
            return Miss(event_type, reason, holds_more=True)
        if key not in shape:
            nears = difflib.get_close_matches(key, shape, 3, NEAR)
            rights = ((*keys[:number], near, *keys[number + 1 :]) for near in nears)
            right = next((each for each in rights if _miss(event_type, root, each) is None), ())
            return Miss(event_type, f"{here!r} has no {key!r}", _written(right))
        shape = shape[key]
    if shape is None or shape == _VALUE:
        return None
    here = _written(keys)
    if not isinstance(shape, Mapping):
        return Miss(event_type, f"{here!r} is {shape}", holds_more=True)
    inside = [key for key, each in shape.items() if each == _VALUE]
    named = [*difflib.get_close_matches(f"{keys[-1]}_id", inside, 1), *inside][:1]
    right = (*keys, *named) if named else ()
    return Miss(event_type, f"{here!r} is an object", _written(right), holds_more=True)


def _written(keys: tuple[str, ...]) -> str:
    """The keys as the path that the author of a handler writes; empty if there are none."""
    if not keys:
        return ""
    return ".".join(("body", *keys[1:]) if keys[0] == "event" else ("envelope", *keys))


@cache
def _shape_of(event_type: str) -> _Shape:
    """The shape of the envelopes of a type; None if it has neither a model nor a sample."""
    # Imported here: registrations without a path load neither models nor samples.
    from flybridge.handlers.payloads import Payload, payload_model
    from flybridge.handlers.samples import sample, sample_types

    model = payload_model(event_type)
    shapes: list[_Shape] = [] if model is Payload else [{"event": _of_model(model)}]
    if event_type in sample_types():
        shapes.append(_of_value(sample(event_type)))
    if not shapes:
        return None
    shape = shapes[0] if len(shapes) == 1 else _either(*shapes)
    header = {"header": dict.fromkeys(_HEADER, _VALUE), "schema": _VALUE}
    return _either(shape, header) if "." in event_type else shape


def _of_value(value: Any) -> _Shape:
    if isinstance(value, Mapping):
        return {key: _of_value(each) for key, each in value.items()}
    if isinstance(value, list):
        return _LIST
    if isinstance(value, bool):
        return _SWITCH
    return None if value is None else _VALUE


def _of_model(model: Any) -> _Shape:
    return {
        field.alias or name: _of_annotation(field.annotation)
        for name, field in model.model_fields.items()
    }


def _of_annotation(annotation: Any) -> _Shape:
    if get_origin(annotation) is Annotated:
        return _of_annotation(get_args(annotation)[0])
    if hasattr(annotation, "model_fields"):
        return _of_model(annotation)
    kinds = [each for each in get_args(annotation) if each is not NoneType]
    if get_origin(annotation) in (tuple, list):
        return _LIST
    if annotation is bool or kinds == [bool]:
        return _SWITCH
    if annotation in (str, int) or (kinds and set(kinds) <= {str, int}):
        return _VALUE
    return None


def _either(one: _Shape, other: _Shape) -> _Shape:
    """The shape of a value that may have either shape."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        shared = {key: _either(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **shared}
    return one if one == other else None
