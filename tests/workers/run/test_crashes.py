from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flybridge.workers.run.crashes import crashed


def run(attempt: int) -> Any:
    return SimpleNamespace(attempt=attempt)


def test_an_event_whose_process_died_is_given_up_after_its_last_attempt() -> None:
    assert crashed(run(1), 2, "SIGSEGV").verdict == "retry"
    (failure,) = crashed(run(2), 2, "SIGSEGV").failed
    assert (failure.reason, failure.error) == ("crash_loop", "SIGSEGV")


def test_one_of_several_in_a_request_is_heard_once_more_even_after_its_last_attempt() -> None:
    outcome = crashed(run(1), 1, "SIGSEGV", alone=False)
    assert (outcome.verdict, outcome.crashed) == ("retry", True)
