"""Words for true, numbers as text: what a value means, however its source wrote it. Pure.

It refuses nothing: what means nothing here is None, and for others to judge.
"""

from __future__ import annotations

from typing import Any

_TRUE = {"true", "t", "yes", "y", "on", "1"}
_FALSE = {"false", "f", "no", "n", "off", "0"}


def truth(value: Any) -> bool | None:
    """Of true, "yes", 1 and the like."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    return True if word in _TRUE else False if word in _FALSE else None


def number(value: Any) -> float | None:
    """Of 5, "5" and 5.0, but not of true."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: `5` and "5.0", true and "on"."""
    return one == other or bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    for reading in (number(value), truth(value)):
        if reading is not None:
            return reading
    return value.casefold() if isinstance(value, str) else value
