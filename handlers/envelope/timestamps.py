"""Reads Unix times in the forms that Feishu writes them in.

Feishu: `create_time` is documented in milliseconds and sent in microseconds for card actions;
1.0 envelopes give decimal seconds in `ts`. Only the number of digits tells them apart; it does so
without doubt from 2001 to 2286.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES = {10: 6, 13: 3, 16: 0}  # digits of the whole part -> decimal places down to microseconds
_MAX_LENGTH = 32


def microseconds(*values: object) -> int | None:
    """Read a Unix time in s (10 digits), ms (13) or µs (16), with or without decimals.

    Args:
        values: texts or numbers, in the order of preference.

    Returns:
        Unix microseconds of the first value that can be read; None if none can.
    """
    for value in values:
        found = _microseconds(value)
        if found is not None:
            return found
    return None


def moment(unix_us: int | None) -> datetime | None:
    """The datetime of Unix microseconds, in UTC."""
    return None if unix_us is None else _EPOCH + timedelta(microseconds=unix_us)


def _microseconds(value: object) -> int | None:
    whole, _, fraction = _digits(value).partition(".")
    places = _PLACES.get(len(whole))
    if places is None or not _is_number(whole) or not (not fraction or _is_number(fraction)):
        return None
    return int(whole + fraction[:places].ljust(places, "0"))


def _digits(value: object) -> str:
    if isinstance(value, str):
        return value.strip() if len(value) <= _MAX_LENGTH else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    # str() refuses integers of thousands of digits; the bound keeps them out.
    return str(value) if 0 < value < 10**16 else ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
