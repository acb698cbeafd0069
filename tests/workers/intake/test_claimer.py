"""The claimer: what it claims, and what ends without a handler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource

from flybridge.bridge.store.streams import Entry
from flybridge.handlers.registry import Registry
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.claim.claims import Busy, Claim, Duplicate, Pending, Run, Settlement
from flybridge.workers.group.unhandled import Unhandled
from flybridge.workers.intake.claimer import Claimer
from flybridge.workers.intake.held import Held
from flybridge.workers.intake.spans import IntakeSpans
from tests.workers.tasks import tasks

LEASE = 30.0


def item(event_id: str, event_type: str = "im.message.receive_v1", line: str = "") -> Pending:
    entry = Entry(event_id, event_type, "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Pending("events:im", f"{event_id}-0", entry, line)


class Stage:
    """A claimer; guard, pending list, settler and group are played."""

    sightings = ()

    def __init__(self) -> None:
        registry = Registry()
        registry.register(lambda event, context: None, "im.*", name="H")
        self.answers: dict[str, Claim] = {}
        self.said: list[tuple[str, Any]] = []
        self.waiting = Waiting(tasks(), tasks())
        self.held = Held(self.waiting)
        played: Any = self
        self.claimer = Claimer(
            played,
            played,
            self.held,
            self.waiting,
            played,
            Unhandled(registry, self, "workers", 0.0),
            IntakeSpans(None, Resource.create(), "workers"),
            LEASE,
            lambda: self.said.append(("wake", None)),
        )

    def claim(self, pending: Sequence[Pending]) -> list[Claim]:
        self.said.append(("claim", [each.entry.event_id for each in pending]))
        runs = {each.entry.event_id: Run(each, each.entry.event_id, 1, {}) for each in pending}
        return [self.answers.get(name, run) for name, run in runs.items()]

    def acknowledge(self, items: Iterable[Pending]) -> None:
        self.said.append(("acknowledge", [each.entry.event_id for each in items]))

    def postpone(self, item: Pending, left: float) -> None:
        self.said.append(("postpone", (item.entry.event_id, left)))

    def add(self, settlements: Iterable[Settlement]) -> None:
        self.said.append(("settle", [(s.run.token, s.outcome.verdict) for s in settlements]))

    def lines_moved(self) -> None:
        self.said.append(("lines moved", None))

    def look(self) -> tuple[()]:
        return ()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_what_is_claimed_waits_for_the_pool_and_is_ours(stage):
    stage.claimer.claim([item("a"), item("b")])
    assert [run.token for run in stage.waiting.ready] == ["a", "b"]
    assert stage.said == [("claim", ["a", "b"]), ("wake", None)]
    assert stage.held.ours(stage.waiting.ready[0])


def test_what_is_held_already_is_not_claimed_again(stage):
    stage.claimer.claim([item("a")])
    stage.said.clear()
    stage.claimer.claim([item("a")])
    assert stage.said == []
    stage.claimer.claim([item("a"), item("b")])
    assert stage.said[0] == ("claim", ["b"])


def test_what_needs_no_handler_here_ends_at_once(stage):
    old, busy = item("old", line="line"), item("busy")
    stage.answers = {"old": Duplicate(old), "busy": Busy(busy, 0.7)}
    stage.claimer.claim([old, busy, item("nobodys", "contact.user.created_v3"), item("ours")])
    assert [run.token for run in stage.waiting.ready] == ["ours"]
    assert stage.said[1:] == [
        ("settle", [("nobodys", "dead")]),
        ("wake", None),
        ("acknowledge", ["old"]),
        ("lines moved", None),
        ("postpone", ("busy", 0.7)),
    ]
    assert (stage.claimer.duplicates, stage.claimer.unhandled) == (1, 1)


def test_closed_it_claims_nothing(stage):
    stage.claimer.is_closed = True
    stage.claimer.claim([item("a")])
    assert stage.said == []
