"""Reads and writes points in time as operators do. In Redis they are Unix milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse(text: str, now: int) -> int:
    """A point in time, as `2h` (ago; s, m, h or d) or in RFC 3339, in Unix ms.

    Args:
        now: Unix ms.

    Raises:
        ValueError: it is neither, or has no time zone.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        return max(0, now - int(ago[1]) * _SECONDS[ago[2]] * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"{text!r} is no time; give 30m, 2h or 3d (ago), or a time with its zone, "
            "like 2026-07-29T10:00:00Z"
        )
    return max(0, int(moment.timestamp() * 1000))


def show(ms: int) -> str:
    """A point in time in RFC 3339, UTC, to the second; `-` for 0."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC) if ms else None
    except (OverflowError, ValueError, OSError):
        moment = None
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else "-"
