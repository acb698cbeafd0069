"""When Redis is full, and when it has room again."""

from __future__ import annotations

from bridge.headroom import HOLD, RELIEF, Headroom, Memory

LIMIT = 1_000_000


def memory(share: float) -> Memory:
    return Memory(int(share * LIMIT), LIMIT)


def test_from_the_threshold_on_it_is_full() -> None:
    headroom = Headroom(0.85)
    headroom.measured(memory(0.84), 0.0)
    assert not headroom.full
    headroom.measured(memory(0.85), 1.0)
    assert headroom.full
    assert headroom.memory == memory(0.85)


def test_it_stays_full_until_it_is_clearly_below() -> None:
    headroom = Headroom(0.85)
    headroom.measured(memory(0.85), 0.0)
    headroom.measured(memory(0.84), 1.0)
    assert headroom.full
    headroom.measured(memory(0.85 * RELIEF - 0.01), 2.0)
    assert not headroom.full
    headroom.measured(memory(0.84), 3.0)
    assert not headroom.full


def test_without_a_limit_it_is_never_full() -> None:
    headroom = Headroom(0.85)
    headroom.measured(Memory(10**12, 0), 0.0)
    assert not headroom.full


def test_a_refused_write_counts_at_once_and_for_a_while_whatever_is_measured() -> None:
    headroom = Headroom(0.85)
    headroom.refused(10.0)
    assert headroom.full
    headroom.measured(Memory(0, 0), 10.0 + HOLD - 0.1)
    assert headroom.full
    headroom.measured(Memory(0, 0), 10.0 + HOLD)
    assert not headroom.full


def test_a_refused_write_is_no_news_to_a_full_one_that_stays_so() -> None:
    headroom = Headroom(0.85)
    headroom.refused(0.0)
    headroom.measured(memory(0.99), HOLD + 1.0)
    assert headroom.full
