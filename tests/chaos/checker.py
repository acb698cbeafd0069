"""Judges a history: every way in which it breaks a promise, a sentence each. Pure, no I/O.

The rules are in `promises` and `excusable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tests.chaos import excusable, promises
from tests.chaos.history import Deed, Disturbance, History

RULES: tuple[Callable[[History], Iterable[str]], ...] = (
    promises.acked_is_handled_or_dead,
    promises.acked_has_an_end,
    promises.pushed_is_acked,
    promises.success_is_recorded_once,
    promises.business_key_succeeds_once,
    promises.terms_grow,
    promises.event_is_in_the_streams_once,
    promises.ack_follows_entry,
    promises.nothing_is_acked_unkept,
    promises.only_the_mortal_die,
    promises.nothing_grows,
    excusable.success_ends_a_handler,
    excusable.runs_do_not_overlap,
    excusable.nothing_runs_beside_itself,
    excusable.key_keeps_its_order,
    excusable.further_attempts_have_a_reason,
    excusable.attempts_are_numbered,
    excusable.recovery_is_quick,
    excusable.nobody_ends_by_itself,
)
"""Their names are what reports call them."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


def violations(history: History) -> list[Violation]:
    """All of them, by rule."""
    whole = replace(history, disturbances=(*history.disturbances, *_crashes(history)))
    return [Violation(rule.__name__, sentence) for rule in RULES for sentence in rule(whole)]


def _crashes(history: History) -> Iterator[Disturbance]:
    """A process that ends itself takes along what else it was running: at most a whole worker."""
    for deed in history.deeds:
        if deed.deed == "crashing":
            fault = excusable.WHOLE_CRASH if _ended_by(history, deed) else excusable.CRASH
            yield Disturbance(fault, frozenset({deed.actor}), deed.time, deed.time)


def _ended_by(history: History, crash: Deed) -> bool:
    """Whether the actor ended with the process that the handler ran in."""
    until = crash.time + excusable.DYING
    return any(
        each.actor == crash.actor and crash.time <= each.time <= until for each in history.exits
    )
