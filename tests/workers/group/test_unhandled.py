"""Types without a handler: left to others, waited for, buried; and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import OTHER
from flybridge.handlers.registry import Registry
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.group.presence import AT_WORK
from flybridge.workers.group.unhandled import (
    HAD_ONE,
    LOG_PERIOD,
    MAX_TYPES,
    Burials,
    Fate,
    Unhandled,
)
from flybridge.workers.routes.coverage import Coverage, Sighting

MESSAGE, CREATED, MADE_UP = "im.message.receive_v1", "contact.user.created_v3", "made.up_v1"
AFTER = 10.0


def handle(event: object, context: object) -> None: ...


class Situation:
    """One worker with a handler for messages, and what it sees of the others."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.seen: list[Sighting] = []
        self.registry = Registry()
        self.registry.register(handle, MESSAGE)
        self.known: list[Sighting] | None = None
        self.looks = 0
        self.unhandled = Unhandled(
            self.registry,
            self,
            "workers",
            AFTER,
            lambda: self.now,
        )

    @property
    def sightings(self) -> list[Sighting]:
        return self.seen if self.known is None else self.known

    def look(self) -> list[Sighting]:
        self.looks += 1
        return self.seen

    def sees(self, pattern: str, *, age: float = 0.0, default: bool = False) -> None:
        handlers = {"other": (pattern,)} if pattern else {}
        coverage = Coverage(handlers, ("im", "contact", "default"), {}, default)
        self.seen = [Sighting(coverage, age)]

    def outcome(self, event_type: str = CREATED) -> Outcome | None:
        return self.unhandled.outcomes([event_type]).get(event_type)

    def fate(self, event_type: str = CREATED, later: float = 0.0) -> Fate:
        self.now += later
        return self.unhandled.fate(event_type, self.seen)


@pytest.fixture
def situation() -> Situation:
    return Situation()


def test_what_it_has_a_handler_for_is_ours_whatever_others_say(situation):
    situation.sees("*")
    assert situation.fate(MESSAGE) is Fate.OURS
    assert situation.outcome(MESSAGE) is None
    assert situation.looks == 0


@pytest.mark.parametrize("pattern", [CREATED, "contact.*", "*"])
def test_what_another_worker_has_a_handler_for_is_left_to_it(situation, pattern):
    situation.sees(pattern)
    assert situation.fate(later=1e6) is Fate.THEIRS
    outcome = situation.outcome()
    assert outcome.returned
    assert outcome.retry_after > 0
    assert situation.unhandled.readable([MESSAGE, CREATED, OTHER]) == [MESSAGE, OTHER]


def test_what_nobody_has_a_handler_for_waits_and_then_becomes_a_dead_letter(situation):
    assert situation.fate() is Fate.WAIT
    assert situation.unhandled.readable([CREATED]) == []
    assert situation.outcome().returned
    assert situation.fate(later=AFTER - 1) is Fate.WAIT
    assert situation.fate(later=1) is Fate.NOBODYS
    assert situation.unhandled.readable([CREATED]) == [CREATED]
    (failure,) = situation.outcome().failed
    assert (failure.handler, failure.reason) == ("", "unhandled")


def test_a_handler_that_comes_is_waited_for_no_more_and_one_that_went_for_long(situation):
    assert situation.fate() is Fate.WAIT
    situation.sees(CREATED)
    assert situation.fate(later=AFTER) is Fate.THEIRS
    situation.sees(CREATED, age=HAD_ONE * AFTER - 1)
    assert situation.fate() is Fate.THEIRS
    situation.sees(CREATED, age=HAD_ONE * AFTER)
    assert situation.fate() is Fate.WAIT
    assert situation.fate(later=AFTER) is Fate.NOBODYS


def test_a_default_handler_takes_what_no_worker_at_work_has_a_handler_for(situation):
    situation.registry.set_default(handle)
    assert situation.fate() is Fate.OURS
    situation.sees(CREATED, age=AT_WORK - 1)
    assert situation.fate() is Fate.THEIRS
    situation.sees(CREATED, age=AT_WORK)
    assert situation.fate() is Fate.OURS
    situation.sees("", default=True)
    assert situation.fate() is Fate.OURS


def test_a_worker_without_a_default_leaves_the_rest_to_one_that_has_one(situation):
    situation.sees("", default=True)
    assert situation.fate(later=1e6) is Fate.THEIRS


@pytest.mark.parametrize("default", [False, True])
def test_a_worker_that_has_just_come_is_seen_before_its_events_are_buried_or_taken(
    situation, default
):
    """What is known is seconds old: who started since is asked after when an event has come."""
    if default:
        situation.registry.set_default(handle)
    situation.known = []
    situation.unhandled.readable([CREATED])
    situation.now += AFTER
    assert situation.unhandled.readable([CREATED]) == [CREATED]
    situation.sees(CREATED)
    outcome = situation.outcome()
    assert outcome.returned
    assert situation.looks == 1


def test_who_handles_the_types_of_a_read_is_asked_once(situation):
    situation.sees("im.*")
    ends = situation.unhandled.outcomes([CREATED, MESSAGE, MADE_UP, "im.other_v1", CREATED])
    assert ends.keys() == {CREATED, MADE_UP, "im.other_v1"}
    assert situation.looks == 1


def test_the_first_default_takes_the_rest_where_it_counts_as_a_handler(situation):
    situation.registry.settle_unhandled()
    assert situation.fate() is Fate.OURS
    situation.sees(CREATED)
    assert situation.fate() is Fate.THEIRS


def test_handlers_that_come_and_go_here_change_what_is_ours(situation):
    situation.registry.register(handle, CREATED, name="late")
    assert situation.fate() is Fate.OURS
    situation.registry.unregister("late")
    assert situation.fate() is Fate.WAIT


def warnings(situation: Situation, act: Callable[[], object]) -> list[str]:
    with capture_logs() as lines:
        act()
    return [line["event_type"] for line in lines if line["event"] == "event.unhandled"]


def test_a_type_is_told_of_once_when_its_first_event_comes(situation):
    look = situation.unhandled.readable
    # Of what was there before nobody knows whether an event of it waits.
    assert warnings(situation, lambda: look([MESSAGE, "im.old_v1"])) == []
    assert warnings(situation, lambda: look([MESSAGE, "im.old_v1", CREATED])) == [CREATED]
    assert warnings(situation, lambda: look([MESSAGE, "im.old_v1", CREATED])) == []
    claim = situation.outcome
    assert warnings(situation, lambda: claim("im.old_v1")) == ["im.old_v1"]
    assert warnings(situation, lambda: claim(CREATED)) == []


def test_the_warning_brings_a_handler_to_paste_unless_the_type_is_no_name(situation):
    with capture_logs() as (lines):
        situation.outcome()
        situation.outcome("x')\nimport os")
    assert f'@handles("{CREATED}")' in lines[0]["suggestion"]
    assert "suggestion" not in lines[1]


def test_types_made_up_without_end_are_not_remembered_without_end(situation):
    for number in range(MAX_TYPES + 10):
        situation.fate(f"made.up_{number}")
    situation.now += AFTER
    assert situation.fate(MADE_UP) is Fate.NOBODYS


def test_burials_are_told_of_at_once_and_then_counted_for_a_minute():
    now = [0.0]
    burials = Burials("dead", lambda: now[0])
    with capture_logs() as lines:
        burials.tell(0)
        assert lines == []
        for displaced in (0, 1, 3):
            burials.add("a")
            burials.tell(displaced)
        burials.add("b")
        now[0] = LOG_PERIOD
        burials.tell(3)
        now[0] = 2 * LOG_PERIOD
        burials.tell(3)
    told = [(line["count"], line["types"], line["displaced"]) for line in lines]
    assert told == [(1, "a", 0), (3, "a b", 3)]
