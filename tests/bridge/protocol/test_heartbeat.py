from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from flybridge.bridge.config.bounds import LONGEST_HEARTBEAT
from flybridge.bridge.protocol.heartbeat import (
    RECENT,
    SHORTEST_INTERVAL,
    Beat,
    Heartbeat,
    PingInterval,
    Rhythm,
)


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    with capture_logs() as lines:
        yield lambda: [str(line["event"]) for line in lines]


def beating(times: int, *, every: float = 25.0, round_trip: float = 0.1) -> Heartbeat:
    """A heartbeat that was answered so many times, the first ping at 0."""
    heartbeat = Heartbeat()
    heartbeat.started(0.0)
    for number in range(times):
        heartbeat.pinged(number * every)
        heartbeat.ponged(number * every + round_trip)
    return heartbeat


def cycle(heartbeat: Heartbeat, at: float, round_trip: float) -> float:
    """One ping and its pong; returns when the next ping is due."""
    heartbeat.pinged(at)
    heartbeat.ponged(at + round_trip)
    return at + heartbeat.interval.seconds


# Statistics


def test_without_a_pong_there_is_nothing_to_tell() -> None:
    told = Heartbeat().statistics(5.0, 5000)
    assert (told.total, told.missed, told.recent, told.last) == (0, 0, (), None)
    assert (told.mean_interval, told.deviation) == (None, None)
    assert (told.round_trip, told.mean_round_trip) == (None, None)
    assert (told.rhythm, told.unstable, told.silent) == ("steady", False, False)
    assert told.ping_interval == LONGEST_HEARTBEAT


def test_every_answered_ping_is_told_with_its_moment_and_round_trip() -> None:
    heartbeat = Heartbeat()
    heartbeat.started(0.0)
    cycle(heartbeat, 0.0, 0.2)
    cycle(heartbeat, 25.0, 0.4)
    told = heartbeat.statistics(30.4, 1_763_800_005_000)
    assert told.total == 2
    first, last = told.recent
    assert first == Beat(1_763_799_974_800, 0.2)
    assert (last.at, last.round_trip) == (1_763_800_000_000, pytest.approx(0.4))
    assert told.last == last.at
    assert told.mean_interval == pytest.approx(25.2)
    assert told.round_trip == pytest.approx(0.4)
    assert told.mean_round_trip == pytest.approx(0.3)


def test_the_total_goes_on_while_memory_stays_bounded() -> None:
    heartbeat = beating(1000)
    told = heartbeat.statistics(25_000.0, 0)
    assert (told.total, len(told.recent)) == (1000, RECENT)
    held = (heartbeat._recent, heartbeat._intervals, heartbeat._deviations)
    assert [len(each) for each in held] == [20, 20, 10]


def test_a_ping_without_a_pong_before_the_next_was_missed() -> None:
    heartbeat = beating(3)
    heartbeat.pinged(75.0)
    assert heartbeat.missed == 0
    heartbeat.pinged(100.0)
    assert heartbeat.missed == 1


def test_a_connection_given_up_misses_the_ping_that_waits_and_none_else() -> None:
    heartbeat = beating(3)
    heartbeat.given_up(60.0)
    assert heartbeat.missed == 0
    heartbeat.pinged(75.0)
    heartbeat.given_up(95.0)
    assert heartbeat.missed == 1


def test_a_pong_after_missed_pings_is_taken_for_that_of_the_last() -> None:
    heartbeat = beating(0)
    for at in (0.0, 10.0, 20.0):
        heartbeat.pinged(at)
    heartbeat.ponged(20.5)
    assert (heartbeat.round_trip, heartbeat.missed, heartbeat.total) == (0.5, 2, 1)


def test_a_pong_nobody_asked_for_counts_for_nothing() -> None:
    heartbeat = beating(2)
    before = heartbeat.statistics(30.0, 0)
    heartbeat.ponged(30.0)
    assert heartbeat.statistics(30.0, 0) == before


def test_between_two_connections_there_is_no_interval() -> None:
    heartbeat = beating(2)
    heartbeat.stopped(30.0)
    heartbeat.started(3000.0)
    cycle(heartbeat, 3000.0, 0.1)
    told = heartbeat.statistics(3001.0, 0)
    assert (told.total, told.mean_interval, told.deviation) == (3, 25.0, pytest.approx(0.0))


def test_a_ping_that_a_connections_end_left_unanswered_is_no_round_trip_of_the_next() -> None:
    heartbeat = beating(1)
    heartbeat.pinged(25.0)
    heartbeat.stopped(26.0)
    heartbeat.started(100.0)
    heartbeat.ponged(101.0)
    assert (heartbeat.total, heartbeat.missed) == (1, 0)


# Heartbeats of the text dialect


def test_heartbeats_between_a_ping_and_its_pong_leave_the_round_trip_alone() -> None:
    heartbeat = beating(0)
    heartbeat.pinged(0.0)
    heartbeat.beaten(0.2)
    assert heartbeat.ponged(0.5).round_trip == 0.5
    told = heartbeat.statistics(1.0, 0)
    assert [beat.round_trip for beat in told.recent] == [None, 0.5]
    assert (told.total, told.mean_interval, told.mean_round_trip) == (2, pytest.approx(0.3), 0.5)


def test_regular_heartbeats_beside_regular_pongs_are_steady(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = beating(0)
    for second in range(300):
        if second % 25 == 0:
            cycle(heartbeat, float(second), 0.1)
        if second % 7 == 0:
            heartbeat.beaten(second + 0.5)
    assert (heartbeat.rhythm, logged()) == ("steady", [])


def test_irregular_heartbeats_are_unstable(logged: Callable[[], list[str]]) -> None:
    heartbeat = beating(0)
    for at in (0.0, 1.0, 20.0, 21.0, 40.0, 41.0):
        heartbeat.beaten(at)
    assert heartbeat.deviation == pytest.approx(8.8, abs=0.1)
    assert logged() == ["heartbeat.unstable"]


def test_two_minutes_after_the_last_heartbeat_the_silence_is_told(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = beating(0)
    heartbeat.beaten(100.0)
    heartbeat.check(219.0)
    assert logged() == []
    heartbeat.check(220.0)
    assert logged() == ["heartbeat.silent"]
    heartbeat.beaten(221.0)
    assert heartbeat.rhythm is not Rhythm.SILENT


# Unstable


def test_pongs_that_come_as_we_ping_are_steady(logged: Callable[[], list[str]]) -> None:
    heartbeat = beating(100)
    assert heartbeat.deviation == pytest.approx(0.0, abs=1e-9)
    assert logged() == []


def test_round_trips_that_vary_widely_are_told_once_and_their_end_too(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = beating(5)
    for number in range(5, 20):
        cycle(heartbeat, number * 25.0, 15.0 if number % 2 else 0.1)
    assert heartbeat.rhythm is Rhythm.UNSTABLE
    assert heartbeat.statistics(500.0, 0).unstable
    assert heartbeat.deviation == pytest.approx(14.9, abs=0.1)
    for number in range(20, 31):
        cycle(heartbeat, number * 25.0, 0.1)
    assert heartbeat.rhythm is Rhythm.STEADY
    assert logged() == ["heartbeat.unstable", "heartbeat.steady"]


def test_a_missed_ping_makes_the_next_pong_an_interval_late() -> None:
    heartbeat = beating(12)
    heartbeat.pinged(300.0)
    cycle(heartbeat, 325.0, 0.1)
    assert heartbeat.statistics(326.0, 0).mean_interval == pytest.approx(25.0 + 25.0 / 12)
    assert heartbeat.deviation == pytest.approx(25.0 / 10**0.5)
    assert heartbeat.rhythm is Rhythm.UNSTABLE
    cycle(heartbeat, 350.0, 0.1)
    assert list(heartbeat._deviations)[-2:] == pytest.approx([25.0, 0.0])


def test_five_seconds_of_deviation_are_the_bound() -> None:
    """Round trips of 0.1 and r in turn make intervals that deviate by r - 0.1."""
    for round_trip, rhythm in ((5.0, Rhythm.STEADY), (5.2, Rhythm.UNSTABLE)):
        heartbeat = Heartbeat()
        heartbeat.started(0.0)
        for number in range(20):
            cycle(heartbeat, number * 25.0, round_trip if number % 2 else 0.1)
        assert heartbeat.rhythm is rhythm


def test_the_end_of_an_outage_is_irregular_before_it_is_steady(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = beating(2)
    for at in (50.0, 60.0, 70.0, 80.0):
        heartbeat.pinged(at)
    for at in range(90, 200, 10):
        cycle(heartbeat, at, 0.1)
    assert logged() == ["heartbeat.missed", "heartbeat.unstable", "heartbeat.steady"]


def test_what_we_change_ourselves_is_no_instability(logged: Callable[[], list[str]]) -> None:
    heartbeat = beating(0)
    at = 0.0
    for every in (25.0, 1.0, 25.0, 120.0, 3.0, 60.0, 25.0, 10.0, 1.0, 25.0, 90.0, 1.0):
        heartbeat.pinged(at)
        heartbeat.ponged(at + 0.1)
        at += every
    assert heartbeat.deviation == pytest.approx(0.0, abs=1e-9)
    assert heartbeat.statistics(at, 0).mean_interval == pytest.approx(35.0)
    assert logged() == []


def test_a_warning_says_what_to_do() -> None:
    with capture_logs() as lines:
        heartbeat = beating(1)
        for at in (25.0, 50.0, 75.0):
            heartbeat.pinged(at)
    (line,) = lines
    assert (line["event"], line["log_level"], line["missed"]) == ("heartbeat.missed", "warning", 2)
    assert "check firewall, NAT and proxy" in line["hint"]


# Missed, silent


def test_one_missed_ping_is_routine_and_two_are_told_once(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = beating(1)
    heartbeat.pinged(25.0)
    heartbeat.pinged(50.0)
    assert logged() == []
    heartbeat.pinged(75.0)
    heartbeat.pinged(100.0)
    assert logged() == ["heartbeat.missed"]


def test_a_pong_between_two_missed_pings_makes_them_routine() -> None:
    heartbeat = beating(12)
    heartbeat.pinged(300.0)
    cycle(heartbeat, 325.0, 0.1)
    heartbeat.pinged(350.0)
    heartbeat.pinged(375.0)
    assert heartbeat.missed == 2
    assert heartbeat.rhythm is not Rhythm.MISSED


def test_pings_missed_on_one_connection_after_another_are_told(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = Heartbeat()
    for began in (0.0, 30.0):
        heartbeat.started(began)
        heartbeat.pinged(began)
        heartbeat.given_up(began + 20.0)
        heartbeat.stopped(began + 20.0)
    assert logged() == ["heartbeat.missed"]


def test_two_minutes_without_a_pong_raise_the_alarm_once(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = beating(1)
    assert heartbeat.next_check() == 120.1
    heartbeat.check(120.0)
    assert logged() == []
    heartbeat.check(120.1)
    heartbeat.check(130.0)
    assert logged() == ["heartbeat.silent"]
    assert heartbeat.next_check() == float("inf")
    assert heartbeat.statistics(130.0, 0).silent


def test_a_pong_nobody_asked_for_ends_the_silence(logged: Callable[[], list[str]]) -> None:
    heartbeat = beating(1)
    heartbeat.check(121.0)
    heartbeat.ponged(122.0)
    assert logged() == ["heartbeat.silent", "heartbeat.steady"]
    assert heartbeat.next_check() == 242.0


def test_a_pong_that_was_read_before_a_pause_ends_the_silence_too() -> None:
    heartbeat = beating(1)
    heartbeat.check(121.0)
    heartbeat.stopped(122.0)
    heartbeat.ponged(122.1)
    heartbeat.started(130.0)
    heartbeat.check(131.0)
    assert heartbeat.rhythm is Rhythm.STEADY


def test_connections_that_never_get_a_pong_are_silent_together(
    logged: Callable[[], list[str]],
) -> None:
    heartbeat = Heartbeat()
    for began in range(0, 600, 60):  # each lives for 20 s, and so the sixth is the silent one
        heartbeat.started(float(began))
        heartbeat.check(began + 20.0)
        heartbeat.stopped(began + 20.0)
        assert (heartbeat.rhythm is Rhythm.SILENT) == (began >= 300)


def test_hours_without_a_connection_are_no_silence() -> None:
    heartbeat = beating(1)
    heartbeat.stopped(10.0)
    assert heartbeat.next_check() == float("inf")
    heartbeat.check(10_000.0)
    heartbeat.started(10_000.0)
    heartbeat.check(10_001.0)
    assert heartbeat.rhythm is Rhythm.STEADY


def test_pings_sent_while_nothing_is_read_prove_nothing() -> None:
    heartbeat = beating(1)
    heartbeat.stopped(1.0)
    for at in (25.0, 50.0, 75.0):
        heartbeat.pinged(at)
    heartbeat.started(80.0)
    heartbeat.ponged(80.1)
    assert (heartbeat.missed, heartbeat.total) == (0, 1)


# The interval


def test_calm_keeps_the_interval_at_its_longest() -> None:
    assert beating(50).interval.seconds == LONGEST_HEARTBEAT


def test_a_missed_ping_halves_the_interval_down_to_ten_seconds() -> None:
    heartbeat = beating(1)
    seconds = []
    for at in (25.0, 50.0, 75.0, 100.0):
        heartbeat.pinged(at)
        seconds.append(heartbeat.interval.seconds)
    assert seconds == [24.0, 12.0, SHORTEST_INTERVAL, SHORTEST_INTERVAL]


def test_a_late_pong_halves_the_interval() -> None:
    heartbeat = beating(20)
    cycle(heartbeat, 500.0, 3.0)
    assert heartbeat.interval.seconds == 12.0


def test_a_round_trip_below_a_second_is_never_late() -> None:
    heartbeat = beating(20, round_trip=0.01)
    cycle(heartbeat, 500.0, 0.9)
    assert heartbeat.interval.seconds == LONGEST_HEARTBEAT


def test_a_slow_link_is_not_in_trouble_for_being_slow() -> None:
    assert beating(20, round_trip=4.0).interval.seconds == LONGEST_HEARTBEAT


def test_calm_lengthens_the_interval_step_by_step() -> None:
    interval = PingInterval()
    interval.shorten()
    interval.shorten()
    seconds = []
    for _ in range(6):
        interval.lengthen()
        seconds.append(interval.seconds)
    assert seconds == [12.5, 15.625, 19.53125, 24.0, 24.0, 24.0]


@pytest.mark.parametrize(
    ("server", "shortest", "longest"),
    [(120, 10.0, 24.0), (24, 10.0, 24.0), (12, 10.0, 12.0), (10, 10.0, 10.0), (1, 1.0, 1.0)],
)
def test_the_servers_interval_is_the_upper_bound_where_it_is_smaller(
    server: int, shortest: float, longest: float
) -> None:
    interval = PingInterval()
    interval.limit(server)
    assert interval.seconds == longest
    for _ in range(5):
        interval.shorten()
    assert interval.seconds == shortest
    for _ in range(9):
        interval.lengthen()
    assert interval.seconds == longest


def test_a_server_that_takes_its_short_interval_back_is_pinged_as_before() -> None:
    interval = PingInterval()
    interval.limit(1)
    interval.lengthen()
    interval.limit(120)
    assert interval.seconds == LONGEST_HEARTBEAT
    interval.limit(1)
    interval.shorten()
    interval.limit(120)
    interval.lengthen()
    assert interval.seconds == 12.5


@given(
    st.lists(
        st.sampled_from(["shorten", "lengthen"]) | st.integers(1, 86_400), min_size=1, max_size=50
    ),
    st.floats(1.0, 24.0),
)
def test_the_interval_never_leaves_its_bounds(steps: list[str | int], longest: float) -> None:
    interval, server = PingInterval(longest), 86_400
    for step in steps:
        if isinstance(step, int):
            server = step
            interval.limit(step)
        else:
            getattr(interval, step)()
        upper = min(longest, server)
        assert min(SHORTEST_INTERVAL, upper) <= interval.seconds <= upper


def test_the_same_story_gives_the_same_numbers() -> None:
    def told() -> object:
        fate = random.Random(7)
        heartbeat, at = Heartbeat(), 0.0
        heartbeat.started(at)
        for _ in range(200):
            heartbeat.pinged(at)
            if fate.random() < 0.8:
                heartbeat.ponged(at + fate.expovariate(2))
            at += heartbeat.interval.seconds
        return heartbeat.statistics(at, 0)

    assert told() == told()
