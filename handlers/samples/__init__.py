"""Sample envelopes of event types, one JSON file each, with invented values.

A sample shows the shape of an event. Real events may lack optional fields.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from flybridge.handlers.types import STATUS_OF_ALIAS, canonical

_FOLDER = files(__name__)
_MICROSECONDS = frozenset({"card.action.trigger", "url.preview.get"})


@cache
def sample_types() -> tuple[str, ...]:
    """The event types that have a sample, in alphabetical order."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


def sample(
    event_type: str,
    *,
    event_id: str | None = None,
    app_id: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The sample envelope of a type, with a new event id and the current time.

    Args:
        event_type: a type or an alias; an alias for one status gives the sample in that status.
        event_id: id for the envelope; None: a random one.
        app_id: app id for the envelope; None: the one in the file.
        overrides: values by dotted path into the `event` object, e.g. `message.content`; a number
            in a path is an index in a list. Plain words as the content of a text message are
            wrapped as `{"text": …}`.

    Raises:
        ValueError: there is no sample of that type, or no such path; the message names near ones.
    """
    envelope = _read(canonical(event_type))
    if event_type in STATUS_OF_ALIAS:
        envelope["event"]["status"] = STATUS_OF_ALIAS[event_type]
    _stamp(envelope, event_id or uuid.uuid4().hex, time.time())
    if app_id:
        envelope.get("header", envelope["event"])["app_id"] = app_id
    for path, value in (overrides or {}).items():
        _override(envelope["event"], path, value)
    return envelope


def _read(event_type: str) -> dict[str, Any]:
    if event_type not in sample_types():
        near = get_close_matches(event_type, sample_types(), 3, 0.4)
        hint = f"near: {', '.join(near)}" if near else "`flybridge events` lists the types"
        raise ValueError(f"There is no sample of {event_type!r}; {hint}")
    envelope: dict[str, Any] = json.loads((_FOLDER / f"{event_type}.json").read_text("utf-8"))
    return envelope


def _stamp(envelope: dict[str, Any], event_id: str, now: float) -> None:
    """Set id and time. Feishu: 2.0 has ms in the header, callbacks µs; 1.0 has seconds in `ts`."""
    header = envelope.get("header")
    if header is None:
        envelope["uuid"], envelope["ts"] = event_id, f"{now:.7f}"
        return
    scale = 1_000_000 if header["event_type"] in _MICROSECONDS else 1000
    header["event_id"], header["create_time"] = event_id, str(int(now * scale))


def _override(event: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    target: Any = event
    try:
        for name in parents:
            target = target[_key(target, name)]
        if path == "message.content" and target["message_type"] == "text":
            value = _text_content(value)
        target[_key(target, last)] = value
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"The sample has no {path!r}; its first level is: {', '.join(event)}"
        ) from None


def _key(target: Any, name: str) -> str | int:
    return int(name) if isinstance(target, list) else name


def _text_content(value: Any) -> Any:
    """Feishu: the content of a text message is a JSON object, written as text."""
    try:
        if isinstance(json.loads(value), dict):
            return value
    except ValueError:
        pass
    return json.dumps({"text": value}, ensure_ascii=False)
