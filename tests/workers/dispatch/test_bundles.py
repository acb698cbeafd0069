"""Bundles: several events a request while handlers are quick, one when any was slow of late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flybridge.workers.dispatch.bundles import MAX_BUNDLE, Bundles


def quick() -> Bundles:
    bundles = Bundles()
    bundles.ran("t", 0.0001)
    return bundles


def test_handlers_nobody_has_seen_run_get_one_event():
    assert Bundles().size("t", waiting=1000, free=2) == 1


def test_quick_handlers_get_many_when_many_wait():
    assert quick().size("t", waiting=1000, free=2) == MAX_BUNDLE


def test_few_waiting_events_are_spread_over_the_free_slots():
    assert quick().size("t", waiting=8, free=4) == 2
    assert quick().size("t", waiting=3, free=4) == 1


def test_one_slow_run_sends_the_next_hundred_events_out_singly():
    bundles = quick()
    bundles.ran("t", 1.0)
    for _ in range(100):
        bundles.ran("t", 0.0001)
        assert bundles.size("t", waiting=1000, free=2) == 1


def test_slow_handlers_of_one_task_do_not_slow_another():
    bundles = quick()
    bundles.ran("slow", 1.0)
    assert bundles.size("t", waiting=1000, free=2) == MAX_BUNDLE


def test_quick_runs_win_back_the_bundles_in_the_end():
    bundles = quick()
    bundles.ran("t", 60.0)
    for _ in range(2000):
        bundles.ran("t", 0.0001)
    assert bundles.size("t", waiting=1000, free=2) == MAX_BUNDLE


@given(st.floats(0, 1e9), st.integers(0, 10**6), st.integers(0, 100))
def test_a_bundle_is_bounded_and_never_larger_than_what_waits(longest, waiting, free):
    bundles = Bundles()
    bundles.ran("t", longest)
    assert 1 <= bundles.size("t", waiting, free) <= max(1, min(MAX_BUNDLE, waiting))
