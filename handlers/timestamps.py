"""Feishu's many spellings of an instant, read into one. It does not format or compare times.

Feishu: `create_time` is documented in milliseconds and sent in microseconds for card actions;
v1 envelopes give decimal seconds in `ts`. Only the number of digits tells them apart, which is
unambiguous from 2001 to 2286.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES = {10: 6, 13: 3, 16: 0}  # digits of the whole part -> decimal places down to microseconds
_LONGEST = 32


def instant(value: object) -> datetime | None:
    """Read Unix time in s (10 digits), ms (13) or µs (16), from text or number.

    Returns:
        An aware datetime in UTC, exact to the microsecond; None for anything else.
    """
    whole, _, fraction = _digits(value).partition(".")
    places = _PLACES.get(len(whole))
    if places is None or not _is_number(whole) or not (not fraction or _is_number(fraction)):
        return None
    microseconds = int(whole + fraction[:places].ljust(places, "0"))
    return _EPOCH + timedelta(microseconds=microseconds)


def _digits(value: object) -> str:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    # The bound also keeps integers of thousands of digits away from str(), which refuses them.
    return str(value) if 0 < value < 10**16 else ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
