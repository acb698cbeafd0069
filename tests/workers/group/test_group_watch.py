"""Handlers that differ within a group, queues that nobody reads: told once, and when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from flybridge.workers.group.group_watch import BEATING, SHOWN_NAMES, START_UP, GroupWatch
from flybridge.workers.group.presence import AT_WORK
from flybridge.workers.routes.coverage import Coverage, Sighting

MESSAGE, CREATED, MADE_UP = "im.message.receive_v1", "contact.user.created_v3", "im.made_up_v1"


class Group:
    """What one worker sees, look by look."""

    def __init__(self) -> None:
        self.now = 0.0
        self.watch = GroupWatch("workers", lambda: self.now)

    def look(
        self, own: Coverage, *others: Coverage, age: float = 0.0, came: tuple[str, ...] = ()
    ) -> list[dict[str, Any]]:
        seen = [Sighting(own, 0.0), *(Sighting(each, age) for each in others)]
        with capture_logs() as lines:
            self.watch.look(own, seen, came)
        return list(lines)


def coverage(*queues: str, moved: dict[str, str] | None = None, **handlers: str) -> Coverage:
    named = {name: tuple(patterns.split()) for name, patterns in handlers.items()}
    return Coverage(named, queues or ("im", "contact"), moved or {})


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.mark.parametrize("pattern", [MESSAGE, "im.*", "*"])
def test_handlers_that_others_have_for_the_same_types_are_named_once(group, pattern):
    own, other = coverage(a=MESSAGE), coverage(a=MESSAGE, b=pattern)
    (line,) = group.look(own, other)
    assert (line["event"], line["lacking"], line["types"]) == ("handlers.differ", "b", MESSAGE)
    assert group.look(own, other) == []
    assert group.look(own) == []
    assert len(group.look(own, other)) == 1


def test_who_has_them_all_is_told_nothing(group):
    assert group.look(coverage(a=MESSAGE, b=MESSAGE), coverage(a=MESSAGE)) == []


def test_handlers_for_other_types_or_in_other_queues_are_no_difference(group):
    own = coverage("im", a=f"{MESSAGE} {CREATED}")
    assert group.look(own, coverage(b=CREATED)) == []
    assert group.look(own, coverage("contact", b=MESSAGE)) == []


def test_a_worker_that_is_gone_makes_no_difference(group):
    assert group.look(coverage(a=MESSAGE), coverage(b=MESSAGE), age=BEATING) == []


def test_types_that_feishu_does_not_know_are_compared_too(group):
    (line,) = group.look(coverage(a=MADE_UP), coverage(b=MADE_UP))
    assert line["types"] == MADE_UP


def test_a_line_names_no_more_than_can_be_read(group):
    others = coverage(**{f"h{number:03}": MESSAGE for number in range(SHOWN_NAMES + 5)})
    (line,) = group.look(coverage(a=MESSAGE), others)
    assert line["lacking"].endswith(f"h{SHOWN_NAMES - 1:03} and 5 more")


def test_a_queue_with_handlers_that_no_worker_reads_is_told_of_once_and_when_it_is_read(group):
    own = coverage(moved={MESSAGE: "heavy"}, a=MESSAGE)
    assert group.look(own) == []
    group.now = START_UP
    (line,) = group.look(own)
    assert (line["event"], line["queue"], line["types"]) == ("queue.unread", "heavy", MESSAGE)
    assert "--queues heavy" in line["hint"]
    assert group.watch.unread == ["heavy"]
    assert group.look(own) == []
    heavy = coverage("heavy", moved={MESSAGE: "heavy"}, a=MESSAGE)
    (line,) = group.look(own, heavy, age=AT_WORK - 1)
    assert (line["event"], line["queue"]) == ("queue.read", "heavy")
    assert group.watch.unread == []
    assert group.look(own, heavy, age=AT_WORK) == []
    group.now += START_UP
    assert len(group.look(own)) == 1


def test_a_queue_whose_workers_are_away_is_told_of_when_events_have_come(group):
    own = coverage("im", a=MESSAGE, b=CREATED)
    for came in ((MESSAGE,), (MESSAGE,), (MESSAGE, CREATED)):
        assert group.look(own, came=came) == []
        group.now += START_UP
    (line,) = group.look(own, came=(MESSAGE, CREATED))
    assert (line["queue"], line["types"]) == ("contact", CREATED)


def test_types_without_a_handler_are_not_missed_in_queues_that_others_read_on_purpose(group):
    for _ in range(3):
        assert group.look(coverage("im", a=MESSAGE), came=(MESSAGE, CREATED)) == []
        group.now += START_UP
