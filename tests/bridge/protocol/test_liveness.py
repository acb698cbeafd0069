from __future__ import annotations

from flybridge.bridge.protocol.liveness import Liveness

INTERVAL = 120.0


def live(now: float = 1000.0) -> Liveness:
    return Liveness(now, pong_timeout=20.0)


def test_the_first_ping_is_due_at_once() -> None:
    assert live(1000.0).next_ping == 1000.0


def test_silence_after_a_ping_is_death_in_20_seconds() -> None:
    liveness = live()
    liveness.pinged(1000.0, INTERVAL)
    assert liveness.next_ping == 1120.0
    assert liveness.deadline(INTERVAL) == 1020.0
    assert liveness.dead(1020.0).reason == "no frame within 20 s after ping"


def test_any_frame_after_a_ping_is_life() -> None:
    liveness = live()
    liveness.pinged(1000.0, INTERVAL)
    liveness.received(1019.0)
    assert liveness.deadline(INTERVAL) == 1019.0 + 2.5 * INTERVAL


def test_further_pings_do_not_put_the_limit_off() -> None:
    liveness = live()
    liveness.pinged(1000.0, 5.0)
    liveness.pinged(1005.0, 5.0)
    assert liveness.deadline(INTERVAL) == 1020.0


def test_two_and_a_half_intervals_without_a_frame_are_death_even_without_a_ping() -> None:
    liveness = live()
    assert liveness.deadline(INTERVAL) == 1300.0
    assert liveness.dead(1300.0).reason == "no frame for 300 s"


def test_a_very_short_interval_does_not_make_the_idle_limit_stricter_than_the_pongs() -> None:
    assert live().deadline(1.0) == 1020.0


def test_once_paused_silence_proves_nothing() -> None:
    liveness = live()
    liveness.pinged(1000.0, INTERVAL)
    liveness.pause()
    assert liveness.deadline(INTERVAL) == float("inf")


def test_another_interval_holds_for_the_very_next_ping() -> None:
    liveness = live()
    liveness.pinged(1000.0, INTERVAL)
    liveness.pace(10.0)
    assert liveness.next_ping == 1010.0


def test_another_interval_does_not_put_the_first_ping_off() -> None:
    liveness = live()
    liveness.pace(10.0)
    assert liveness.next_ping == 1000.0
