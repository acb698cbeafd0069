"""What a request has come to when its process is killed under it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from flybridge.handlers import Batch, Context, Event, Registry
from flybridge.handlers.registry import Registration
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.run import progress
from flybridge.workers.run.failures import Again
from flybridge.workers.run.items import Item
from flybridge.workers.run.runner import Case, case_of
from flybridge.workers.run.watch import Call

TYPE = "im.message.receive_v1"
KILLED = "TimeLimitExceeded: no outcome within 40 s"


@pytest.fixture
def table() -> Registry:
    table = Registry()
    for name in ("a", "b"):
        table.register(lambda event, context: None, TYPE, name=name, max_attempts=2)
    return table


def a_case(table: Registry, number: int = 1, **marks: str) -> Case:
    header = {"event_id": f"ev-{time.monotonic_ns()}", "event_type": TYPE, "app_id": "cli_x"}
    envelope = json.dumps({"schema": "2.0", "header": header, "event": {}}).encode()
    item = Item("", TYPE, envelope, number, marks, None, "", "")
    case = case_of(table, item, lambda items: None)
    assert isinstance(case, Case)
    return case


def running(registration: Registration | None, *cases: Case, together: bool = False) -> Call:
    assert registration is not None
    events: Sequence[Event] = [case.attempt.event for case in cases]
    context = Context(1, 2, time.monotonic(), "ev", TYPE, registration.name)
    return Call(registration, events if together else events[0], context, 1)


def outcome(case: Case | Outcome, *calls: Call) -> Outcome:
    (found,) = progress.outcomes([case], calls, KILLED)
    return found


def test_who_had_succeeded_keeps_that_and_who_ran_is_tried_again(table: Registry) -> None:
    case = a_case(table)
    case.results["a"] = None
    found = outcome(case, running(table.get("b"), case))
    assert (found.finished, found.error, found.crashed) == (("a",), KILLED, True)
    assert found.retry_after is not None
    assert not found.failed


def test_who_ran_in_its_last_attempt_is_given_up_and_nobody_else(table: Registry) -> None:
    case = a_case(table, number=2)
    found = outcome(case, running(table.get("a"), case))
    assert found.failed == (Failure("a", "crash_loop", KILLED),)
    assert found.verdict == "retry", "b has not been heard"
    case.results["b"] = None
    found = outcome(case, running(table.get("a"), case))
    assert (found.verdict, found.finished) == ("dead", ("b",))


def test_who_had_failed_keeps_its_own_wait_and_cause(table: Registry) -> None:
    case = a_case(table)
    case.results["a"] = Again(7.0, "ValueError")
    case.results["b"] = None
    found = outcome(case)
    assert (found.finished, found.retry_after, found.error) == (("b",), 7.0, "ValueError")
    assert not found.crashed


def test_marks_of_earlier_attempts_stay(table: Registry) -> None:
    case = a_case(table, number=2, a="rejected\nno")
    found = outcome(case, running(table.get("b"), case))
    assert [each.handler for each in found.failed] == ["a", "b"]


def test_an_event_of_which_nothing_was_begun_is_given_back(table: Registry) -> None:
    assert outcome(a_case(table)) == progress.NOT_BEGUN
    assert progress.NOT_BEGUN.returned


def test_of_a_batch_nobody_is_given_up_for_another(table: Registry) -> None:
    batch = Registry()
    batch.register(lambda events, context: None, TYPE, name="a", max_attempts=1,
                   batch=Batch(2))  # fmt: skip
    both: Any = [a_case(batch), a_case(batch)]
    call = running(batch.get("a"), *both, together=True)
    assert [each.verdict for each in progress.outcomes(both, [call], KILLED)] == ["retry"] * 2
    alone = running(batch.get("a"), both[0], together=True)
    assert outcome(both[0], alone).verdict == "dead"


def test_what_is_no_event_keeps_its_outcome() -> None:
    decoded = Outcome(failed=(Failure("", "decode", "x"),))
    assert outcome(decoded) is decoded
