"""The rules of attempts, for workers and for `flybridge.handlers.testing` alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.handlers import Registry, Reject, Retry
from flybridge.handlers.errors import EventInvalid, PayloadInvalid
from flybridge.handlers.policy import Decision, batch_results, decide, is_too_old, longest_wait
from flybridge.handlers.registry import Registration

GREET = Registry().register(lambda event, context: None, "*", name="greet")


def registration(**options: Any) -> Registration:
    return replace(GREET, **options)


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(100, 1000))
def test_the_wait_doubles_up_to_its_bound(attempt: int, backoff: float, backoff_max: float) -> None:
    tried = registration(backoff=backoff, backoff_max=backoff_max)
    wait = longest_wait(tried, attempt)
    assert wait == min(backoff_max, backoff * 2.0 ** min(attempt - 1, 64))
    assert wait <= longest_wait(tried, attempt + 1) <= backoff_max


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), Retry(), SystemExit(1)])
def test_a_failure_is_tried_again_until_attempts_are_used_up(error: BaseException) -> None:
    tried = registration(max_attempts=3, backoff=4.0)
    assert decide(error, tried, 2, 0.0) == Decision(retry_after=8.0)
    assert decide(error, tried, 2, 0.0, spread=0.5) == Decision(retry_after=4.0)
    assert decide(error, tried, 3, 0.0) == Decision(given_up="attempts")


def test_a_wait_that_the_handler_names_is_not_spread() -> None:
    assert decide(Retry(after=7.5), registration(), 1, 0.0, spread=0.5).retry_after == 7.5
    assert decide(Retry(after=0), registration(), 1, 0.0).retry_after == 0


@pytest.mark.parametrize("error", [Reject("no"), EventInvalid("odd"), PayloadInvalid("odd")])
def test_what_no_retry_heals_is_given_up_at_once(error: Exception) -> None:
    assert decide(error, registration(), 1, 0.0) == Decision(given_up="rejected")


def test_an_attempt_beyond_the_age_limit_is_not_waited_for() -> None:
    aged = registration(max_age=60)
    assert decide(Retry(after=10), aged, 1, 50.0).retry_after == 10
    assert decide(Retry(after=10), aged, 1, 50.1) == Decision(given_up="age")
    assert decide(ValueError(), aged, 5, 99.0) == Decision(given_up="attempts")
    assert (is_too_old(aged, 60.0), is_too_old(aged, 60.1)) == (False, True)
    assert not is_too_old(registration(), 1e9)


def test_a_batch_that_returns_nothing_has_succeeded_as_a_whole() -> None:
    assert batch_results(None, 2, "save") == [None, None]


@pytest.mark.parametrize("kind", [list, tuple])
def test_an_exception_in_the_list_is_the_failure_of_the_event_in_its_place(kind: Any) -> None:
    error = Retry(after=1)
    assert batch_results(kind([None, error, 7]), 3, "save") == [None, error, 7]


def test_an_exception_class_and_an_exit_in_the_list_are_mistakes_of_the_handler() -> None:
    for_class, for_exit = batch_results([ValueError, SystemExit(0)], 2, "save")
    assert isinstance(for_class, TypeError)
    assert "ValueError was returned; return an instance" in str(for_class)
    assert isinstance(for_exit, RuntimeError)


@pytest.mark.parametrize(
    ("returned", "what"), [([None], "1 of them"), ("ok", "str"), ({}, "dict"), (3, "int")]
)
def test_any_other_value_fails_every_event_with_what_to_return(returned: Any, what: str) -> None:
    results = batch_results(returned, 2, "save")
    assert len(results) == 2
    for error in results:
        assert isinstance(error, TypeError)
        assert str(error).startswith(f"save returned {what} for 2 events; return None, or a list")
