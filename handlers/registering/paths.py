"""Paths to a value in an envelope, such as `body.message.chat_id`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PATH = re.compile(r"(?P<root>body|envelope)(?P<rest>(?:\.[A-Za-z0-9_-]{1,64}){1,8})")


def location(path: str) -> tuple[str, ...] | None:
    """The keys that lead from the envelope to the value; None if this is not a path.

    `body.` starts in the `event` object of the envelope, `envelope.` at its top.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    keys = tuple(match["rest"][1:].split("."))
    return ("event", *keys) if match["root"] == "body" else keys


def value_at(envelope: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """The text or whole number at the keys, as text; None if there is neither."""
    found: Any = envelope
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return str(found) or None
