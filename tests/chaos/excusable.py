"""Rules of the checker that hold unless somebody is killed, paused or cut off. Pure.

An anomaly is excused by a disturbance that touched its span and one of its actors. Each rule yields
a sentence for every anomaly that is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.history import EVERYBODY, Deed, Disturbance, History, SeenEntry, Settled
from tests.chaos.promises import CLOCKS, forgotten

CRASH = "crash"
"""The disturbance of a handler that ends its own process: part of the play, and soon over."""

WHOLE_CRASH = "crash of a whole worker"
"""The same where that process is all of the worker: it has to start again, and others take over."""

BACK = 3.0
"""Seconds until it has started again. No fault waits for that: what it hits may not be there."""

DYING = 3.0
"""Seconds that a process may take to end after what ended it."""

STARTING = 8.0
"""Seconds of its life in which a process may give up because Redis is not fit to work with."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a handler for an event; `ended` is None if nobody knows."""

    started: Deed
    ended: Deed | None


def success_ends_a_handler(history: History) -> Iterator[str]:
    """No handler starts after its success was recorded.

    A later attempt never does. One that was claimed before, by a worker that was paused or cut off
    since, may.
    """
    recorded: dict[tuple[str, str], Settled] = {}
    for settled in sorted(history.settled, key=lambda each: each.time):
        lasting = settled.recorded and not forgotten(history, settled.time)
        for handler in settled.finished if lasting else ():
            recorded.setdefault((settled.event_id, handler), settled)
    entered = {push.event_id: push.pushed for push in history.pushes}
    for deed in history.deeds:
        success = recorded.get((deed.event_id, deed.handler))
        if deed.deed != "started" or success is None or deed.time <= success.time + CLOCKS:
            continue
        since = entered.get(deed.event_id, success.time)
        if deed.attempt <= success.attempt and _excused(history, (deed,), since, deed.time):
            continue
        yield (
            f"{deed.handler} started attempt {deed.attempt} of event {deed.event_id} in "
            f"{deed.actor}, {deed.time - success.time:.3f} s after its success was recorded as "
            f"attempt {success.attempt}"
        )


def runs_do_not_overlap(history: History) -> Iterator[str]:
    """Two executions of a handler for an event never overlap."""
    for first, second in _successive(history):
        ended = _end(first)
        if second.started.time < ended and not _disturbed(history, first, second):
            yield (
                f"{_told(second)} began {second.started.time - first.started.time:.3f} s after "
                f"{_told(first)}, which went on for {ended - second.started.time:.3f} s more"
            )


def nothing_runs_beside_itself(history: History) -> Iterator[str]:
    """No handler is at work twice with one event, or with one key of an ordered type.

    They say so themselves, by locks that end with their process; so it counts for those that hang
    and are killed, too, whose end nobody else sees.
    """
    keys = {
        push.event_id: push.key for push in history.pushes if push.event_type == history.ordered
    }
    alike: dict[tuple[str, str], list[Deed]] = defaultdict(list)
    for deed in history.deeds:
        for what in {deed.event_id, keys.get(deed.event_id, "")} - {""}:
            alike[deed.handler, what].append(deed)
    for deed in history.deeds:
        if deed.deed != "overlapped":
            continue
        key = keys.get(deed.event_id) or deed.event_id
        before = tuple(each for each in alike[deed.handler, key] if each.time <= deed.time)
        since = max((each.time for each in before if _is_another(each, deed)), default=deed.time)
        if not _excused(history, before, since, deed.time):
            yield f"{_told(Run(deed, None))} found another at work with {key}"


def _is_another(start: Deed, deed: Deed) -> bool:
    same = (start.event_id, start.attempt, start.pid) == (deed.event_id, deed.attempt, deed.pid)
    return start.deed == "started" and not same


def key_keeps_its_order(history: History) -> Iterator[str]:
    """An ordered event is not started before those ahead of it have had their last run."""
    for line in _lines(history):
        latest: Run | None = None
        for event in line:
            if latest is not None and event[0].started.time < _end(latest):
                actors = (latest.started, *(run.started for run in event))
                begin = min(each.time for each in actors)
                if not _excused(history, actors, begin, _end(latest)):
                    yield (
                        f"{_told(event[0])} began {_end(latest) - event[0].started.time:.3f} s "
                        f"before the end of {_told(latest)}, which is ahead of it in the stream"
                    )
            latest = max((latest, *event) if latest else event, key=_end)


def further_attempts_have_a_reason(history: History) -> Iterator[str]:
    """A handler runs again only after it failed."""
    for first, second in _successive(history):
        failed = first.ended is not None and first.ended.deed in ("failed", "crashing", "hanging")
        if not failed and not _disturbed(history, first, second):
            did = first.ended.deed if first.ended else "vanished"
            yield f"{_told(second)} follows {_told(first)}, which {did}"


def attempts_are_numbered(history: History) -> Iterator[str]:
    """No two executions of a handler for an event have the same number."""
    for first, second in _successive(history):
        same = second.started.attempt <= first.started.attempt
        if same and not _disturbed(history, first, second):
            yield f"{_told(second)} comes after {_told(first)}"


def recovery_is_quick(history: History) -> Iterator[str]:
    """Take-over, hand-over, redelivery and half-open connections keep to their limits."""
    for recovery in history.recoveries:
        until = recovery.ended if recovery.ended is not None else recovery.began + recovery.limit
        if until - recovery.began <= recovery.limit and recovery.ended is not None:
            continue
        same = (recovery.fault, CRASH)
        others = (each for each in history.disturbances if each.fault not in same)
        if any(each.begin <= until and _well_after(each) >= recovery.began for each in others):
            continue
        took = "never" if recovery.ended is None else f"{until - recovery.began:.2f} s"
        yield (
            f"{recovery.kind} after {recovery.fault} at {recovery.began:.3f} took {took}; "
            f"{recovery.limit:g} s are promised"
        )


def _well_after(disturbance: Disturbance) -> float:
    return disturbance.end + (BACK if disturbance.fault == WHOLE_CRASH else 0.0)


def nobody_ends_by_itself(history: History) -> Iterator[str]:
    """A process ends only when a fault ends it, or keeps it from starting."""
    for ended in history.exits:
        excuses = (
            each
            for each in history.disturbances
            if ended.actor in each.actors or (EVERYBODY in each.actors and ended.age < STARTING)
        )
        if not any(each.begin <= ended.time <= each.end + DYING for each in excuses):
            yield (
                f"{ended.actor} ended at {ended.time:.3f} with {ended.code}, "
                f"{ended.age:.1f} s after its start"
            )


def runs(deeds: Iterable[Deed]) -> dict[tuple[str, str], list[Run]]:
    """The executions of each handler for each event, in the order of their starts."""
    open_runs: dict[tuple[str, str, int, int], Deed] = {}
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for deed in sorted(deeds, key=lambda each: each.time):
        if deed.deed == "overlapped":
            continue
        where = (deed.event_id, deed.handler, deed.pid, deed.attempt)
        started = open_runs.pop(where, None)
        if started is not None:
            ended = deed if deed.deed != "started" else None
            found[deed.event_id, deed.handler].append(Run(started, ended))
        if deed.deed == "started":
            open_runs[where] = deed
    for started in open_runs.values():
        found[started.event_id, started.handler].append(Run(started, None))
    for each in found.values():
        each.sort(key=lambda run: run.started.time)
    return found


def _lines(history: History) -> Iterator[list[list[Run]]]:
    """For each key the runs of its events, in the order of the stream."""
    by_event = {event_id: each for (event_id, _), each in runs(history.deeds).items()}
    keys = {push.event_id: push.key for push in history.pushes
            if push.key and push.event_type == history.ordered}  # fmt: skip
    places = {each.event_id: _place(each) for each in sorted(history.entries, key=_place)}
    found: dict[str, list[list[Run]]] = defaultdict(list)
    # An event has a second place only where Redis has forgotten the first.
    for event_id in sorted(places, key=lambda each: places[each]):
        if event_id in keys and event_id in by_event:
            found[keys[event_id]].append(by_event[event_id])
    yield from found.values()


def _place(entry: SeenEntry) -> tuple[int, ...]:
    return tuple(map(int, entry.entry_id.split("-")))


def _end(run: Run) -> float:
    return run.ended.time if run.ended else run.started.time


def _successive(history: History) -> Iterator[tuple[Run, Run]]:
    for each in runs(history.deeds).values():
        yield from pairwise(each)


def _disturbed(history: History, first: Run, second: Run) -> bool:
    begin, end = first.started.time, second.started.time
    return _excused(history, (first.started, second.started), begin, end)


def _excused(history: History, deeds: tuple[Deed, ...], begin: float, end: float) -> bool:
    actors = frozenset(deed.actor for deed in deeds)
    return any(each.touches(actors, begin, end) for each in history.disturbances)


def _told(run: Run) -> str:
    deed = run.started
    return (
        f"attempt {deed.attempt} of {deed.handler} at event {deed.event_id} in {deed.actor} "
        f"(pid {deed.pid}, {deed.time:.3f})"
    )
