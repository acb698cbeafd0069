from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.handlers.envelope.timestamps import microseconds, moment

MOMENT = datetime(2025, 11, 22, 8, 26, 40, 123456, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1763800000", MOMENT.replace(microsecond=0)),
        ("1763800000123", MOMENT.replace(microsecond=123000)),
        ("1763800000123456", MOMENT),
        (1763800000, MOMENT.replace(microsecond=0)),
        (1763800000123, MOMENT.replace(microsecond=123000)),
        (1763800000123456, MOMENT),
        ("1763800000.1234567", MOMENT),
        ("1763800000.5", MOMENT.replace(microsecond=500000)),
        (1763800000.5, MOMENT.replace(microsecond=500000)),
        ("1763800000.", MOMENT.replace(microsecond=0)),
        (" 1763800000123 ", MOMENT.replace(microsecond=123000)),
    ],
)
def test_digits_tell_seconds_from_milliseconds_from_microseconds(
    value: object, expected: datetime
) -> None:
    assert moment(microseconds(value)) == expected


def test_the_first_value_that_can_be_read_counts() -> None:
    assert microseconds(None, "soon", "1763800000.5", "1763800001") == 1763800000_500000
    assert microseconds() is None
    assert moment(None) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "0",
        0,
        -1763800000,
        "-176380000",
        "+176380000",
        "1763800000.x",
        "1763800000.12.3",
        "١٧٦٣٨٠٠٠٠٠",
        "now",
        True,
        float("nan"),
        float("inf"),
        10**16,
        10**5000,
        "9" * 1_000_000,
        [],
        {},
        b"1763800000",
        "1.76e9",
        17638000001,
    ],
    ids=lambda value: str(value)[:12] if not isinstance(value, int) else "int",
)
def test_garbage_and_overflow_are_no_time(value: object) -> None:
    assert microseconds(value) is None


@given(st.integers(min_value=10**15, max_value=10**16 - 1))
def test_microseconds_are_exact(number: int) -> None:
    assert microseconds(str(number)) == number
    found = moment(number)
    assert found is not None
    assert (found - EPOCH) // timedelta(microseconds=1) == number


@given(st.datetimes(datetime(2002, 1, 1), datetime(2285, 1, 1)))
def test_every_spelling_of_one_second_is_the_same_instant(second: datetime) -> None:
    seconds = int(second.replace(tzinfo=UTC).timestamp())
    spellings: list[Any] = [seconds, str(seconds), f"{seconds}.0", seconds * 1000, seconds * 10**6]
    assert {microseconds(spelling) for spelling in spellings} == {seconds * 10**6}


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.binary()))
def test_nothing_raises_and_every_time_is_utc(value: object) -> None:
    found = moment(microseconds(value))
    assert found is None or found.tzinfo is UTC
