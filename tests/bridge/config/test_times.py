"""Times as operators write them: an age or RFC 3339, and a sentence for anything else."""

from __future__ import annotations

import pytest

from flybridge.bridge.config.times import parse, show

NOW = 1_785_315_600_000  # 2026-07-29T09:00:00Z


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30m", NOW - 30 * 60_000),
        ("2h", NOW - 2 * 3_600_000),
        ("1d", NOW - 86_400_000),
        ("0s", NOW),
        ("999999999d", 0),
        ("2026-07-29T09:00:00Z", NOW),
        ("2026-07-29T11:00:00.250+02:00", NOW + 250),
        ("2026-07-29 09:00:00+00:00", NOW),
        ("0001-01-01T00:00:00Z", 0),
    ],
)
def test_a_time_is_an_age_or_rfc_3339(text: str, ms: int) -> None:
    assert parse(text, NOW) == ms


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-07-29", "2026-07-29T09:00:00", "-2h", "2h30m", "２h", "1785315600"],
)
def test_what_could_mean_several_times_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"give 30m, 2h or 3d \(ago\), or a time with its zone"):
        parse(text, NOW)


def test_times_are_shown_in_utc_to_the_second() -> None:
    assert show(NOW + 999) == "2026-07-29T09:00:00Z"
    assert show(0) == "-"
    assert show(10**18) == "-"
