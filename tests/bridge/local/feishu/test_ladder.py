from __future__ import annotations

import pytest

from flybridge.bridge.local.feishu.ladder import Ladder


def test_an_event_is_pushed_again_after_15_s_5_min_1_h_and_6_h() -> None:
    assert [Ladder().wait(climbed) for climbed in range(4)] == [15, 300, 3600, 21_600]


def test_there_is_no_fifth_retry() -> None:
    assert Ladder().wait(4) is None


def test_a_scaled_clock_shortens_every_rung() -> None:
    assert [Ladder(clock_scale=60).wait(climbed) for climbed in range(4)] == [0.25, 5, 60, 360]


@pytest.mark.parametrize("clock_scale", [0, -1])
def test_a_clock_that_stands_or_runs_backwards_is_refused(clock_scale: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Ladder(clock_scale=clock_scale)
