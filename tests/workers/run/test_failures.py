from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flybridge.handlers import Context, Registry, Reject, Retry
from flybridge.handlers.errors import EventInvalid, PayloadInvalid
from flybridge.handlers.registry import Registration
from flybridge.workers.claim.outcomes import MAX_ERROR, Failure
from flybridge.workers.run.failures import Again, crashed, describe, judge


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks are drawn slowly outside of production."""
    with structlog.testing.capture_logs():
        yield


def registration(**options: Any) -> Registration:
    return Registry().register(lambda event, context: None, "*", name="greet", **options)


def context(attempt: int) -> Context:
    return Context(attempt, 5, 0.0, "ev-1", "im.message.receive_v1", "greet")


class SoftTimeLimitExceeded(Exception):
    """As Celery's: no more than an Exception."""


class WorkerShutdown(SystemExit):
    """As Celery's."""


@pytest.mark.parametrize(
    "error", [ValueError("x"), TimeoutError(), SoftTimeLimitExceeded(), Retry(), SystemExit(1)]
)
def test_a_failure_is_tried_again_until_attempts_are_used_up(error: BaseException) -> None:
    tried = registration(max_attempts=3, backoff=4.0)
    again = judge(error, tried, context(2))
    assert isinstance(again, Again)
    assert 4.0 <= again.after <= 8.0
    assert judge(error, tried, context(3)) == Failure("greet", "attempts", describe(error))


def test_a_handler_may_name_its_own_wait() -> None:
    assert judge(Retry(7.5, "busy"), registration(), context(1)) == Again(7.5, "Retry: busy")
    assert judge(Retry(0), registration(), context(1)).error.startswith("Retry: the handler")


@pytest.mark.parametrize("error", [Reject("no such chat"), EventInvalid("odd body")])
def test_what_no_retry_can_heal_is_given_up_at_once(error: Exception) -> None:
    assert judge(error, registration(), context(1)) == Failure("greet", "rejected", describe(error))


@pytest.mark.parametrize("order", [KeyboardInterrupt(), SystemExit(-241), WorkerShutdown(0)])
def test_an_order_to_the_process_passes_through_in_the_main_thread_only(
    order: BaseException,
) -> None:
    with pytest.raises(type(order)):
        judge(order, registration(), context(1))
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.append(judge(order, registration(), context(1)))
    )
    thread.start()
    thread.join()
    assert isinstance(results[0], Again)


@pytest.mark.parametrize("code", [0, 1, -1, None, "text", -300])
def test_an_exit_of_the_handlers_own_is_a_failed_attempt(code: Any) -> None:
    assert isinstance(judge(SystemExit(code), registration(), context(1)), Again)


def test_a_failure_is_logged_with_its_traceback_and_what_follows() -> None:
    error = ValueError("x")
    with structlog.testing.capture_logs() as lines:
        judge(error, registration(backoff=0), context(1))
        judge(error, registration(), context(5))
    assert lines[0] == {
        "event": "attempt.failed",
        "log_level": "warning",
        "event_id": "ev-1",
        "event_type": "im.message.receive_v1",
        "handler": "greet",
        "attempt": 1,
        "error": "ValueError",
        "retry_after": 0.0,
        "exception": "ValueError: x",
    }
    assert lines[1]["given_up"] == "attempts"


@pytest.mark.parametrize("error", [Retry(1, "busy"), Reject("busy"), PayloadInvalid("busy")])
def test_a_verdict_of_the_handlers_own_is_logged_without_traceback(error: Exception) -> None:
    with structlog.testing.capture_logs() as lines:
        judge(error, registration(), context(1))
    assert lines[0]["reason"] == "busy"
    assert "exception" not in lines[0]


def test_a_retry_beyond_the_age_limit_is_given_up_now_with_its_error() -> None:
    aged = registration(max_age=60)
    assert judge(Retry(10, "busy"), aged, context(1), age=51.0) == Failure(
        "greet", "age", "Retry: busy"
    )


def test_the_wait_of_the_backoff_is_spread_by_up_to_a_half() -> None:
    waits = [judge(ValueError(), registration(backoff=4.0), context(1)) for _ in range(50)]
    assert all(isinstance(each, Again) and 2.0 <= each.after <= 4.0 for each in waits)
    assert len(set(waits)) > 1


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\n  two\tthree"), "ValueError: one two three"),
        (TimeoutError(), "TimeoutError"),
        (Mute(), "Mute: its text cannot be made"),
        (ValueError("\ud800"), "ValueError: ?"),
    ],
)
def test_an_error_is_described_on_one_line(error: Exception, text: str) -> None:
    assert describe(error) == text


@given(st.text(min_size=500))
def test_a_description_is_short_and_can_be_stored(message: str) -> None:
    assert len(describe(ValueError(message * 3)).encode()) <= MAX_ERROR


def claimed(attempt: int) -> Any:
    return SimpleNamespace(attempt=attempt)


def test_an_event_whose_process_died_is_given_up_after_its_last_attempt() -> None:
    assert crashed(claimed(1), 2, "SIGSEGV").verdict == "retry"
    (failure,) = crashed(claimed(2), 2, "SIGSEGV").failed
    assert (failure.reason, failure.error) == ("crash_loop", "SIGSEGV")


def test_one_of_several_in_a_request_is_heard_once_more_even_after_its_last_attempt() -> None:
    outcome = crashed(claimed(1), 1, "SIGSEGV", alone=False)
    assert (outcome.verdict, outcome.crashed) == ("retry", True)
