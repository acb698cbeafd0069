"""When to connect again, and whether."""

from __future__ import annotations

import pytest

from flybridge.bridge.config.bounds import LONGEST_DELAY
from flybridge.bridge.errors import ConnectionOver, FeishuUnavailable
from flybridge.bridge.feishu.backoff import FIRST, Attempts, Backoff


def test_the_bound_doubles_up_to_the_cap_and_starts_anew_after_a_success() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    backoff.reset()
    assert backoff.next() == FIRST


def test_the_jitter_is_full() -> None:
    assert Backoff(lambda: 0.0).next() == 0.0


def test_the_first_bound_can_be_set_and_is_below_no_cap() -> None:
    backoff = Backoff(lambda: 1.0, first=5.0)
    backoff.limit(1.0)
    assert [backoff.next(), backoff.next()] == [5.0, 5.0]
    backoff.limit(30.0)
    assert backoff.next() == 20.0
    backoff.reset()
    assert backoff.next() == 5.0


@pytest.mark.parametrize(("asked", "cap"), [(30, 30.0), (86_400, LONGEST_DELAY), (0, FIRST)])
def test_the_servers_interval_is_a_cap_within_limits(asked: float, cap: float) -> None:
    backoff = Backoff()
    backoff.limit(asked)
    assert backoff.cap == cap


def test_a_bridge_that_is_not_to_reconnect_has_one_connection_and_one_attempt() -> None:
    attempts = Attempts(auto_reconnect=False)
    with pytest.raises(ConnectionOver, match=r"has ended .bye.; FLYBRIDGE_AUTO_RECONNECT"):
        attempts.ended("bye", brief=False)
    with pytest.raises(ConnectionOver, match="no network") as over:
        attempts.fail(FeishuUnavailable("no network"))
    assert isinstance(over.value.__cause__, FeishuUnavailable)


def test_failures_and_brief_connections_in_a_row_are_bounded() -> None:
    attempts = Attempts(most=3)
    attempts.fail(FeishuUnavailable("no network"))
    attempts.ended("bye", brief=True)
    attempts.succeeded()
    attempts.ended("bye", brief=False)
    for _ in range(2):
        attempts.fail(FeishuUnavailable("no network"))
    with pytest.raises(ConnectionOver, match=r"3 attempts .* FLYBRIDGE_MAX_RECONNECT_ATTEMPTS"):
        attempts.ended("bye", brief=True)
    assert attempts.failures == 5


def test_without_a_bound_there_is_always_another_attempt() -> None:
    attempts = Attempts()
    for _ in range(1_000):
        attempts.fail(FeishuUnavailable("no network"))
    assert attempts.failures == 1_000
