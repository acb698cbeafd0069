"""Riding out failures: the caller goes on, and the log tells an outage and its end once."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from redis.exceptions import ResponseError

from flybridge.workers.intake.outages import Outages

Lines = list[MutableMapping[str, Any]]

NOREPLICAS = ResponseError("NOREPLICAS Not enough good replicas to write.")


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("flybridge.workers.intake.outages.time", clock)
    return clock


@pytest.fixture
def outages(clock: Clock) -> Outages:
    no_pauses = threading.Event()
    no_pauses.set()
    return Outages(None, lambda: None, no_pauses)  # type: ignore[arg-type]


class Reader:
    """Its groups cannot be made: a key that they need is of another type, and stays so."""

    def __init__(self) -> None:
        self.asked = 0

    def forget_groups(self) -> None:
        self.asked += 1
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


def ask(outages: Outages, doing: str, error: Exception | None = None) -> None:
    with outages.ride_out(doing):
        if error:
            raise error


def told(lines: Lines) -> list[str]:
    return [line["event"] for line in lines]


def test_who_succeeds_between_the_failures_of_others_does_not_end_the_outage(outages, clock):
    with structlog.testing.capture_logs() as lines:
        for now in (0.0, 0.3, 0.6):
            clock.now = now
            for doing in ("keep", "settle"):
                ask(outages, doing, NOREPLICAS)
                ask(outages, doing)
        clock.now = 5.0
        ask(outages, "keep")
    assert told(lines) == ["redis.refused", "redis.recovered"]


@pytest.mark.parametrize("code", ["NOGROUP", "UNBLOCKED", "WRONGTYPE"])
def test_groups_that_cannot_be_made_are_tried_once_for_each_failure(clock, code):
    no_pauses = threading.Event()
    no_pauses.set()
    reader = Reader()
    outages = Outages(reader, lambda: None, no_pauses)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as lines:
        for number in (1, 2):
            ask(outages, "read", ResponseError(f"{code} and so on"))
            assert reader.asked == number
    assert told(lines) == ["redis.refused"]
