"""The checker, on histories made by hand: a good one breaks no rule, each bad one its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import Violation, violations
from tests.chaos.history import (
    EVERYBODY,
    DeadLetter,
    Deed,
    Disturbance,
    Exit,
    History,
    Pushed,
    Recovery,
    SeenEntry,
    Settled,
    Slope,
)


def deed(name: Any, time: float, attempt: int = 1, actor: str = "worker-1", **other: Any) -> Deed:
    given = {"handler": "act", "event_id": "e1", "pid": 7, **other}
    return Deed(name, attempt=attempt, actor=actor, time=time, **given)


def settled(time: float, attempt: int = 1, *, recorded: bool = True, **other: Any) -> Settled:
    given = {"event_id": "e1", "finished": ("act",), "verdict": "done", "actor": "worker-1"}
    return Settled(attempt=attempt, recorded=recorded, time=time, **{**given, **other})


def disturbance(*actors: str, begin: float = 2.0, end: float = 2.5, **other: Any) -> Disturbance:
    return Disturbance("fault", frozenset(actors or (EVERYBODY,)), begin, end, **other)


def entry(term: int, added: float, event_id: str = "e1") -> SeenEntry:
    return SeenEntry("type", f"{added:.0f}-0", event_id, term, added)


GOOD = History(
    handlers={"type": ("act",), "*": ("act",)},
    mortal=frozenset({"poison"}),
    pushes=(Pushed("e1", "type", 1.0, 1.2),),
    deeds=(deed("started", 2.0), deed("finished", 3.0)),
    settled=(settled(3.1),),
    entries=(entry(5, 1.1),),
    states={"e1": "done"},
)

AGAIN = (*GOOD.deeds, deed("started", 4.0, 2), deed("finished", 5.0, 2))
"""A second attempt that nothing called for."""

OVERLAP = (deed("started", 2.0), deed("started", 2.5, 2, pid=8), deed("finished", 3.0),
           deed("finished", 3.5, 2, pid=8))  # fmt: skip


def broken(history: History) -> set[str]:
    """The rules that a history breaks."""
    return {violation.rule for violation in violations(history)}


def test_a_good_history_breaks_no_rule() -> None:
    assert violations(GOOD) == []


def test_an_acked_event_that_nobody_finished_is_lost() -> None:
    lost = replace(GOOD, deeds=GOOD.deeds[:1])
    assert broken(lost) == {"acked_is_handled_or_dead"}
    (violation,) = violations(lost)
    assert "e1" in violation.sentence
    assert "act never finished" in violation.sentence


def test_each_handler_of_a_type_has_to_finish() -> None:
    assert broken(replace(GOOD, handlers={"type": ("act", "other")})) == {
        "acked_is_handled_or_dead"
    }


def test_a_dead_letter_is_as_good_as_handled_if_its_type_may_die() -> None:
    letters = (DeadLetter("e1", "attempts"),)
    pushes = (replace(GOOD.pushes[0], event_type="poison"),)
    dead = replace(GOOD, deeds=(), settled=(), dead_letters=letters, states={"e1": "dead"})
    assert broken(replace(dead, pushes=pushes)) == set()
    assert broken(dead) == {"only_the_mortal_die"}


def test_an_unreadable_payload_has_to_be_buried() -> None:
    pushes = (Pushed("local-1", "", 1.0, 1.2, b"garbage"),)
    lost = History(pushes=pushes)
    assert broken(lost) == {"acked_is_handled_or_dead"}
    assert broken(replace(lost, dead_letters=(DeadLetter("", "decode", b"garbage"),))) == set()


@pytest.mark.parametrize("state", ["", "running", "retry"])
def test_an_acked_event_has_to_end(state: str) -> None:
    assert broken(replace(GOOD, states={"e1": state})) == {"acked_has_an_end"}


def test_in_the_end_everything_is_acked() -> None:
    pushes = (replace(GOOD.pushes[0], acked=None),)
    assert broken(replace(GOOD, pushes=pushes)) == {"pushed_is_acked"}


def test_a_success_recorded_twice_is_excused_by_nothing() -> None:
    twice = replace(GOOD, settled=(settled(3.1), settled(3.2, 2)))
    assert broken(replace(twice, disturbances=(disturbance(end=9),))) == {
        "success_is_recorded_once"
    }
    refused = replace(GOOD, settled=(settled(3.1), settled(3.2, 2, recorded=False)))
    assert broken(refused) == set()


def test_successes_of_different_handlers_are_recorded_each_once() -> None:
    both = (settled(3.1, verdict="retry"), settled(3.2, 2, finished=("other",)))
    assert broken(replace(GOOD, settled=both)) == set()


def test_no_later_attempt_starts_after_the_success_was_recorded_whatever_the_disturbance() -> None:
    late = replace(GOOD, deeds=AGAIN, disturbances=(disturbance(begin=1, end=9),))
    assert broken(late) == {"success_ends_a_handler"}


def test_an_attempt_claimed_before_may_start_late_in_a_worker_that_was_disturbed() -> None:
    zombie = deed("started", 4.0, 1, "worker-2", pid=9)
    late = replace(GOOD, deeds=(*GOOD.deeds, zombie), settled=(settled(3.1, 2),))
    assert "success_ends_a_handler" in broken(late)
    paused = disturbance("worker-2", begin=1.5, end=3.9)
    assert "success_ends_a_handler" not in broken(replace(late, disturbances=(paused,)))


def keyed(event_type: str, *events: str) -> dict[str, Any]:
    """A history's pushes and entries of events with one key, in this order."""
    return {
        "handlers": {"*": ("act",)},
        "pushes": [Pushed(each, event_type, 1.0, 1.2, key="k") for each in events],
        "entries": [
            replace(entry(5, 1.1, each), entry_id=f"1-{n}") for n, each in enumerate(events, 9)
        ],
        "states": dict.fromkeys(events, "done"),
        event_type: event_type,
    }


def test_events_of_one_key_run_in_the_order_of_their_stream_and_one_at_a_time() -> None:
    def told(*times: float) -> History:
        named = (("started", "e1"), ("finished", "e1"), ("started", "e2"), ("finished", "e2"))
        deeds = [deed(name, time, event_id=each)
                 for (name, each), time in zip(named, times, strict=True)]  # fmt: skip
        return History(**keyed("ordered", "e1", "e2"), deeds=deeds)

    assert broken(told(2.0, 3.0, 3.1, 4.0)) == set()
    overlapping, upside_down = told(2.0, 3.0, 2.5, 4.0), told(3.0, 4.0, 2.0, 2.5)
    assert broken(overlapping) == broken(upside_down) == {"key_keeps_its_order"}
    paused = (disturbance("worker-1", begin=2.4, end=2.5),)
    assert broken(replace(overlapping, disturbances=paused)) == set()


def test_who_waits_for_its_retry_keeps_its_place() -> None:
    deeds = [deed("started", 2.0), deed("failed", 2.1), deed("started", 3.0, 2),
             deed("finished", 3.1, 2), deed("started", 2.5, event_id="e2"),
             deed("finished", 2.6, event_id="e2")]  # fmt: skip
    assert broken(History(**keyed("ordered", "e1", "e2"), deeds=deeds)) == {"key_keeps_its_order"}


def test_a_business_key_succeeds_once_and_that_is_enough_for_all_its_events() -> None:
    once = History(**keyed("business", "e1", "e2"), deeds=GOOD.deeds, settled=GOOD.settled)
    assert broken(once) == set()
    twice = (*GOOD.settled, settled(3.5, event_id="e2"))
    assert broken(replace(once, settled=twice)) == {"business_key_succeeds_once"}


def test_an_older_term_after_a_newer_one_is_a_zombie() -> None:
    terms = (entry(5, 1.1), entry(6, 1.2, "e2"), entry(5, 1.3, "e3"))
    assert broken(replace(GOOD, entries=terms)) == {"terms_grow"}
    assert broken(replace(GOOD, entries=(*terms[:2], entry(6, 1.3, "e3")))) == set()


def test_an_event_is_in_the_streams_once() -> None:
    assert broken(replace(GOOD, entries=(entry(5, 1.1), entry(5, 1.15)))) == {
        "event_is_in_the_streams_once"
    }


def test_an_ack_never_comes_before_the_entry() -> None:
    assert broken(replace(GOOD, entries=(entry(5, 1.9),))) == {"ack_follows_entry"}
    assert broken(replace(GOOD, entries=())) == {"ack_follows_entry"}


def test_nothing_is_acked_while_no_redis_or_no_replica_keeps_it() -> None:
    down = disturbance(begin=0.5, end=1.5, keeps_nothing=True)
    assert broken(replace(GOOD, disturbances=(down,))) == {"nothing_is_acked_unkept"}
    slow = disturbance(begin=0.5, end=1.5)
    assert broken(replace(GOOD, disturbances=(slow,))) == set()


def test_what_redis_has_forgotten_may_be_done_and_recorded_anew() -> None:
    again = (deed("started", 5.0, 2), deed("finished", 5.1, 2))
    twice = replace(GOOD, deeds=(*GOOD.deeds, *again), settled=(settled(3.1), settled(5.2, 2)),
                    pushes=(Pushed("e1", "type", 1.0, 4.2),),
                    entries=(entry(5, 1.1), entry(5, 4.0)))  # fmt: skip
    all_three = {"success_is_recorded_once", "event_is_in_the_streams_once",
                 "success_ends_a_handler"}  # fmt: skip
    lost = disturbance(begin=1.05, end=3.2, forgets=True)
    assert all_three <= broken(twice)
    assert all_three <= broken(replace(twice, disturbances=(replace(lost, forgets=False),)))
    assert broken(replace(twice, disturbances=(lost,))) == set()
    told_late, too_late = replace(lost, end=3.0), replace(lost, end=2.5)
    assert "success_is_recorded_once" not in broken(replace(twice, disturbances=(told_late,)))
    assert "success_is_recorded_once" in broken(replace(twice, disturbances=(too_late,)))


def test_an_event_whose_entry_was_forgotten_has_the_place_of_its_second_entry() -> None:
    deeds = [deed("started", 3.0), deed("finished", 3.1),
             deed("started", 2.0, event_id="e2"), deed("finished", 2.1, event_id="e2")]  # fmt: skip
    upside_down = History(**keyed("ordered", "e1", "e2"), deeds=deeds)
    assert broken(upside_down) == {"key_keeps_its_order"}
    second = SeenEntry("type", "9-0", "e1", 5, 1.5)
    moved = replace(upside_down, entries=(*upside_down.entries, second))
    assert "key_keeps_its_order" not in broken(moved)


def test_a_forgotten_claim_may_be_used_until_its_lease_is_over() -> None:
    overlap = replace(GOOD, deeds=OVERLAP, settled=())
    lost = disturbance(begin=0.5, end=1.0, forgets=True)
    assert "runs_do_not_overlap" in broken(replace(overlap, disturbances=(disturbance(end=1.0),)))
    assert "runs_do_not_overlap" not in broken(replace(overlap, disturbances=(lost,)))
    long_ago = replace(lost, begin=-2.0, end=-1.0)
    assert "runs_do_not_overlap" in broken(replace(overlap, disturbances=(long_ago,)))


def test_what_was_acked_is_not_forgotten() -> None:
    lost = disturbance(begin=1.05, end=9.0, forgets=True)
    bad = replace(GOOD, deeds=(), settled=(), states={}, disturbances=(lost,))
    assert broken(bad) == {"acked_is_handled_or_dead", "acked_has_an_end"}


def test_overlapping_runs_need_a_disturbance_of_one_of_the_two() -> None:
    overlap = replace(GOOD, deeds=OVERLAP, settled=())
    assert "runs_do_not_overlap" in broken(overlap)
    elsewhere = replace(overlap, disturbances=(disturbance("bridge-1"),))
    assert "runs_do_not_overlap" in broken(elsewhere)
    earlier = replace(overlap, disturbances=(disturbance(begin=1.0, end=1.9),))
    assert "runs_do_not_overlap" in broken(earlier)
    assert broken(replace(overlap, disturbances=(disturbance("worker-1"),))) == set()


def test_what_finds_another_at_work_needs_a_disturbance_of_one_that_ran() -> None:
    beside = (
        deed("started", 1.1), deed("hanging", 1.2),
        deed("started", 3.0, 2), deed("overlapped", 3.01, 2), deed("finished", 3.1, 2),
    )  # fmt: skip
    bad = replace(GOOD, deeds=beside, settled=(settled(3.2, 2),))
    assert broken(bad) == {"nothing_runs_beside_itself"}
    assert broken(replace(bad, disturbances=(disturbance("worker-1"),))) == set()
    assert broken(replace(bad, disturbances=(disturbance("bridge-1"),))) == broken(bad)


def test_a_key_that_is_at_work_twice_needs_a_disturbance_too() -> None:
    other = {"event_id": "e2", "pid": 8}
    pushes = [replace(GOOD.pushes[0], event_id=each, event_type="in order", key="k")
              for each in ("e1", "e2")]  # fmt: skip
    deeds = (deed("started", 1.1), deed("hanging", 1.2), deed("started", 3.0, **other),
             deed("overlapped", 3.01, **other))  # fmt: skip
    bad = replace(GOOD, ordered="in order", pushes=pushes, deeds=deeds)
    assert "nothing_runs_beside_itself" in broken(bad)
    excused = replace(bad, disturbances=(disturbance("worker-1"),))
    assert "nothing_runs_beside_itself" not in broken(excused)


def test_a_further_attempt_needs_a_failure_or_a_disturbance() -> None:
    again = replace(GOOD, deeds=AGAIN, settled=(settled(5.1, 2),))
    assert broken(again) == {"further_attempts_have_a_reason"}
    failed = (AGAIN[0], deed("failed", 3.0), *AGAIN[2:])
    assert broken(replace(again, deeds=failed)) == set()
    assert broken(replace(again, disturbances=(disturbance("worker-1"),))) == set()


def test_a_process_that_kills_itself_takes_along_what_else_it_was_running() -> None:
    crash = deed("crashing", 3.5, handler="crash", event_id="e9")
    again = replace(GOOD, deeds=(*AGAIN, crash), settled=(settled(5.1, 2),))
    assert broken(again) == set()


def test_a_number_is_used_by_one_attempt_only() -> None:
    failed = (deed("started", 2.0), deed("failed", 2.1), deed("started", 2.2, pid=8),
              deed("finished", 3.0, pid=8))  # fmt: skip
    assert broken(replace(GOOD, deeds=failed)) == {"attempts_are_numbered"}


def test_a_recovery_keeps_to_its_limit_unless_another_fault_came_between() -> None:
    slow = Recovery("take-over", "01 leader killed", 10.0, 15.0, 4.0)
    assert broken(replace(GOOD, recoveries=(slow,))) == {"recovery_is_quick"}
    assert broken(replace(GOOD, recoveries=(replace(slow, ended=None),))) == {"recovery_is_quick"}
    assert broken(replace(GOOD, recoveries=(replace(slow, ended=13.9),))) == set()
    other = disturbance(begin=11, end=12)
    assert broken(replace(GOOD, recoveries=(slow,), disturbances=(other,))) == set()
    crash = (deed("started", 12.0, event_id="e9"), deed("crashing", 12.1, event_id="e9"))
    assert broken(History(recoveries=(slow,), deeds=crash)) == {"recovery_is_quick"}
    whole = (Exit("worker-1", -9, 12.2, 30.0),)
    assert broken(History(recoveries=(slow,), deeds=crash, exits=whole)) == set()
    later = (Exit("worker-1", -9, 22.2, 30.0),)
    assert "recovery_is_quick" in broken(History(recoveries=(slow,), deeds=crash, exits=later))
    before = [replace(each, time=each.time - 3.5) for each in crash]
    gone = (replace(whole[0], time=8.7),)
    assert broken(History(recoveries=(slow,), deeds=before)) == {"recovery_is_quick"}
    assert broken(History(recoveries=(slow,), deeds=before, exits=gone)) == set()
    own = Disturbance("01 leader killed", frozenset({"bridge-1"}), 10.0, 15.0)
    assert broken(replace(GOOD, recoveries=(slow,), disturbances=(own,))) == {"recovery_is_quick"}


def test_what_grows_is_told() -> None:
    assert broken(replace(GOOD, slopes=(Slope("threads of worker-1", 5, 40, 8),))) == {
        "nothing_grows"
    }
    assert broken(replace(GOOD, slopes=(Slope("threads of worker-1", 5, 9, 8),))) == set()


def test_a_process_ends_only_when_a_fault_ends_it() -> None:
    ended = replace(GOOD, exits=(Exit("bridge-1", 1, 4.0, 30.0),))
    assert broken(ended) == {"nobody_ends_by_itself"}
    everybody = replace(ended, disturbances=(disturbance(end=3.9),))
    assert broken(everybody) == {"nobody_ends_by_itself"}
    assert broken(replace(ended, disturbances=(disturbance("bridge-1", end=3.9),))) == set()


def test_a_process_may_fail_to_start_while_everybody_is_disturbed() -> None:
    ended = replace(GOOD, exits=(Exit("bridge-1", 4, 4.0, 1.5),))
    assert broken(ended) == {"nobody_ends_by_itself"}
    assert broken(replace(ended, disturbances=(disturbance(end=3.9),))) == set()


def test_a_violation_reads_as_rule_and_sentence() -> None:
    assert str(Violation("rule", "e1 was lost")) == "rule: e1 was lost"
