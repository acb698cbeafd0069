"""Prints a body of every event type that lark-oapi knows, made from its models' field types."""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from typing import Any

from lark_oapi.event import dispatcher_handler  # type: ignore[import-not-found,unused-ignore]

VALUES = {str: "x", int: 7, float: 1.5, bool: True}


def value(kind: Any, above: tuple[Any, ...] = ()) -> Any:
    """Something of that type; an object has each of its fields."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, set):
        return [value(inner[0], above)]
    if origin is dict:
        return {"k": value(inner[1], above)}
    if origin is typing.Union:
        return value(inner[0], above)
    fields = getattr(kind, "_types", None)
    if fields is None:
        return VALUES.get(kind, "x")
    if kind in above:
        return None
    return {name: value(each, (*above, kind)) for name, each in fields.items()}


def bodies() -> dict[str, Any]:
    """Event type -> body."""
    source = inspect.getsource(dispatcher_handler)
    known = re.findall(r'_processorMap\["p[12]\.([\w.]+)"\] = \(?\s*(\w+)\(\s*f', source)
    events = {
        name: getattr(dispatcher_handler, processor)(None).type() for name, processor in known
    }
    return {
        name: value(event._types["event"])
        for name, event in events.items()
        if "event" in event._types
    }


json.dump(bodies(), sys.stdout)
