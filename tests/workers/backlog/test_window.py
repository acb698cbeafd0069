"""The window: far-sighted when handlers are fast, modest when they are slow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flybridge.workers.backlog.window import LOOK_AHEAD, MAX_WINDOW, Window


def settled(rate: float, seconds: float = 5.0, step: float = 0.01) -> Window:
    window, now = Window(0.0), 0.0
    while now < seconds:
        now += step
        window.settled(round(rate * step), now)
    return window


def test_a_new_worker_holds_no_more_than_its_pool_runs():
    assert Window(0.0).size(8) == 8


def test_fast_handlers_open_the_window_to_a_moment_of_work():
    assert abs(settled(rate=4000).size(2) - 4000 * LOOK_AHEAD) < 50


def test_slow_handlers_leave_the_rest_to_other_workers():
    window = Window(0.0)
    for second in range(1, 20):
        window.settled(1, float(second))
    assert window.size(2) == 2


def test_the_window_closes_again_after_a_quiet_time():
    window = settled(rate=4000)
    window.settled(1, 60.0)
    assert window.size(2) == 2


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 10)), max_size=50))
def test_the_window_is_bounded_whatever_happens(steps):
    window, now = Window(0.0), 0.0
    for count, elapsed in steps:
        now += elapsed
        window.settled(count, now)
        assert 3 <= window.size(3) <= MAX_WINDOW
