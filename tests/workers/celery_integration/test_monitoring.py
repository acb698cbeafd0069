"""Monitors are told how events fared, and only if somebody asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flybridge.workers.celery_integration.monitoring import are_told, ending
from flybridge.workers.claim.outcomes import Failure, Outcome

DONE = Outcome(finished=("H",))
RETRY = Outcome(retry_after=1.0, error="ValueError: no")
RETURNED = Outcome(retry_after=0.0, returned=True)
DEAD = Outcome(failed=(Failure("H", "rejected", "Reject: no"),))


@pytest.mark.parametrize(
    ("outcomes", "name"),
    [
        ([DONE], "task-succeeded"),
        ([RETRY], "task-retried"),
        ([RETURNED], "task-rejected"),
        ([DEAD], "task-failed"),
        ([DONE, RETRY, DEAD], "task-failed"),
        ([DONE, RETRY, RETURNED], "task-retried"),
    ],
)
def test_the_worst_outcome_speaks_for_a_request(outcomes: list[Outcome], name: str) -> None:
    told, fields = ending(outcomes, 0.25)
    assert told == name
    if name == "task-failed":
        assert fields["exception"] == "rejected: Reject: no"
    if name == "task-succeeded":
        assert fields["runtime"] == 0.25


@pytest.mark.parametrize(
    ("enabled", "groups", "told"),
    [(True, set(), True), (True, {"worker", "task"}, True), (True, {"worker"}, False),
     (False, set(), False)],
)  # fmt: skip
def test_monitors_are_told_when_somebody_asked(enabled: bool, groups: set[str], told: bool) -> None:
    assert are_told(SimpleNamespace(enabled=enabled, groups=groups)) is told


def test_there_may_be_no_dispatcher() -> None:
    assert not are_told(None)
