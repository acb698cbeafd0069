"""Reads the payload model that a handler's annotation names: `event: Event[MyPayload]`.

`payload_fit` checks that model against the event types.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_origin

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.event import Event

Models = tuple[type[Any], ...]
"""The pydantic models that a handler names, several for a union; empty when it names none."""

_UNIONS = (typing.Union, types.UnionType)


def models_of(handle: Callable[..., Any], where: str, *, position: int = 0) -> Models:
    """The payload models in the annotation of the event, or of the sequence of events.

    None if any payload will do: `Event`, `Event[Any]`, `Event[Payload]`, or no annotation.

    Args:
        handle: a function, or the `handle` of a class.
        where: `module:line` of the handler, for the error.
        position: index of the event among the parameters; 1 behind `self`.

    Raises:
        RegistrationInvalid: the name in the brackets is not a pydantic model, or does not exist at
            run time.
    """
    annotation = _annotation(handle, position)
    if annotation is None:
        return ()
    payloads = list(dict.fromkeys(_payloads(_evaluated(annotation, handle, where))))
    if not payloads or Any in payloads:
        return ()
    # Imported here: handlers that name no model do not load the models.
    from flybridge.handlers.payloads import Payload

    models = tuple(_checked(each, where) for each in payloads)
    return () if issubclass(Payload, models) else models


def _annotation(handle: Callable[..., Any], position: int) -> Any:
    try:
        parameters = list(inspect.signature(handle).parameters.values())
    except ValueError:  # some builtins have no signature
        return None
    if len(parameters) <= position or parameters[position].annotation is inspect.Parameter.empty:
        return None
    return parameters[position].annotation


def _evaluated(annotation: Any, handle: Callable[..., Any], where: str) -> Any:
    code = inspect.unwrap(handle.func if isinstance(handle, functools.partial) else handle)
    function = code if hasattr(code, "__globals__") else type(code).__call__
    names = getattr(function, "__globals__", {})
    holder = types.SimpleNamespace(__annotations__={"event": annotation})
    try:
        return typing.get_type_hints(holder, names)["event"]
    except Exception as error:  # an annotation is an expression: it may raise anything
        if "Event[" not in str(annotation):
            return None
        raise RegistrationInvalid(
            f"{where}: the annotation {annotation} cannot be evaluated at run time ({error}); "
            "import or define its names at the top level of the module, above the handler and not "
            "under `if TYPE_CHECKING:`"
        ) from None


def _payloads(hint: Any) -> Iterable[Any]:
    """What stands in the brackets of each `Event[…]`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Event:
        (payload,) = arguments
        yield from get_args(payload) if get_origin(payload) in _UNIONS else (payload,)
    elif origin in _UNIONS:
        for each in arguments:
            yield from _payloads(each)
    elif isinstance(origin, type) and issubclass(origin, Iterable) and arguments:
        yield from _payloads(arguments[0])  # the sequence that a batch handler gets


def _checked(payload: Any, where: str) -> type[Any]:
    from pydantic import BaseModel  # imported here, as above

    if isinstance(payload, type) and issubclass(payload, BaseModel):
        return payload
    if isinstance(payload, TypeVar):
        raise RegistrationInvalid(
            f"{where}: Event[{payload.__name__}] names a type variable; write `handle` in the "
            "class that is registered, with the model's name"
        )
    name = payload.__name__ if isinstance(payload, type) else str(payload)
    raise RegistrationInvalid(
        f"{where}: Event[{name}]: a payload is a pydantic model; give a subclass of "
        "pydantic.BaseModel, or write Event without brackets"
    )
