"""Rules of the checker that no fault excuses: what must hold through all of them. Pure.

Only what Redis itself has forgotten, of the things that nobody waited for, counts as never done.
Each yields a sentence for every time it is broken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.history import History, Settled

CLOCKS = 0.05
"""Seconds by which the clocks behind two records may differ: log lines and entry ids have the wall
clock's time, everything else the monotonic one's."""

TELLING = 0.2
"""Seconds from Redis' answer to the log line that tells of it, on a busy machine."""

IN_FLIGHT = 0.5
"""Seconds for acks on their way, through busy processes, when Redis or its replica went down."""


def acked_is_handled_or_dead(history: History) -> Iterator[str]:
    """acked − (handled ∪ dead letters) = ∅, for each handler of the event."""
    finished = {(deed.event_id, deed.handler) for deed in history.deeds if deed.deed == "finished"}
    keys = business_keys(history)
    finished |= {(keys[each], handler) for each, handler in finished if each in keys}
    dead = {letter.event_id for letter in history.dead_letters}
    buried = {letter.payload for letter in history.dead_letters if letter.payload}
    for push in history.pushes:
        if push.acked is None or push.event_id in dead:
            continue
        if push.payload:
            if push.payload not in buried:
                yield f"unreadable {push.payload[:60]!r} was acked and is in no dead letter"
            continue
        for handler in history.handlers_of(push.event_type):
            if not finished & {(push.event_id, handler), (keys.get(push.event_id, ""), handler)}:
                yield (
                    f"event {push.event_id} ({push.event_type}) was acked at {push.acked:.3f}, "
                    f"but {handler} never finished it, and it is no dead letter; its state is "
                    f"{history.states.get(push.event_id, '')!r}"
                )


def acked_has_an_end(history: History) -> Iterator[str]:
    """Every acked event is done or dead in Redis."""
    for push in history.pushes:
        state = history.states.get(push.event_id, "")
        if push.acked is not None and not push.payload and state not in ("done", "dead"):
            yield f"event {push.event_id} ({push.event_type}) was acked and is {state or 'nowhere'}"


def pushed_is_acked(history: History) -> Iterator[str]:
    """With every fault healed and time to push again, Feishu is rid of everything."""
    for push in history.pushes:
        if push.acked is None:
            yield f"event {push.event_id} ({push.event_type}) was never acked"


def success_is_recorded_once(history: History) -> Iterator[str]:
    """Recorded successes per handler and event ≤ 1."""
    by_handler: dict[tuple[str, str], list[Settled]] = defaultdict(list)
    for settled in history.settled:
        for handler in settled.finished if settled.recorded else ():
            by_handler[settled.event_id, handler].append(settled)
    for (event_id, handler), found in by_handler.items():
        records = _remembered(history, found)
        if len(records) > 1:
            told = ", ".join(f"attempt {r.attempt} by {r.actor} at {r.time:.3f}" for r in records)
            yield f"{handler}'s success with event {event_id} was recorded as {told}"


def business_key_succeeds_once(history: History) -> Iterator[str]:
    """Recorded successes per handler and business key ≤ 1, under however many event ids."""
    keys = business_keys(history)
    by_handler: dict[tuple[str, str], list[Settled]] = defaultdict(list)
    for settled in history.settled:
        for handler in settled.finished if settled.recorded else ():
            if settled.event_id in keys:
                by_handler[keys[settled.event_id], handler].append(settled)
    for (key, handler), found in by_handler.items():
        records = _remembered(history, found)
        if len(records) > 1:
            told = ", ".join(f"event {r.event_id} by {r.actor} at {r.time:.3f}" for r in records)
            yield f"{handler}'s success with {key} was recorded for {told}"


def terms_grow(history: History) -> Iterator[str]:
    """No entry of an older term after one of a newer term."""
    newest, since = 0, 0.0
    ours = [entry for entry in history.entries if entry.term]  # others were planted past us
    for entry in sorted(ours, key=lambda each: (each.added, each.term)):
        if entry.term < newest and entry.added > since:
            yield (
                f"entry {entry.entry_id} of {entry.stream} (event {entry.event_id}) has term "
                f"{entry.term}, {entry.added - since:.3f} s after the first of term {newest}"
            )
        if entry.term > newest:
            newest, since = entry.term, entry.added


def event_is_in_the_streams_once(history: History) -> Iterator[str]:
    """No event id twice in the streams."""
    entries = [each for each in history.entries if not forgotten(history, each.added)]
    counts = Counter(entry.event_id for entry in entries)
    for event_id in [name for name, count in counts.items() if count > 1]:
        places = [f"{e.stream} {e.entry_id}" for e in entries if e.event_id == event_id]
        yield f"event {event_id} is in the streams {len(places)} times: {', '.join(places)}"


def ack_follows_entry(history: History) -> Iterator[str]:
    """The ack comes after the entry, never before it."""
    added = {entry.event_id: entry.added for entry in history.entries}
    for push in history.pushes:
        if push.acked is None or push.payload:
            continue
        if push.event_id not in added:
            yield f"event {push.event_id} was acked and was never seen in a stream"
        elif push.acked < added[push.event_id] - CLOCKS:
            early = added[push.event_id] - push.acked
            yield f"event {push.event_id} was acked {early:.3f} s before it was in its stream"


def nothing_is_acked_unkept(history: History) -> Iterator[str]:
    """While no Redis runs, or no replica where an ack waits for one, nothing is acked."""
    for down in (each for each in history.disturbances if each.keeps_nothing):
        for push in history.pushes:
            if push.acked is not None and down.begin + IN_FLIGHT < push.acked < down.end:
                yield (
                    f"event {push.event_id} was acked {push.acked - down.begin:.3f} s after "
                    f"{down.fault} had left nothing to keep it"
                )


def only_the_mortal_die(history: History) -> Iterator[str]:
    """A dead letter is what a handler gave up, and no event that faults alone hit."""
    types = {push.event_id: push.event_type for push in history.pushes}
    for letter in history.dead_letters:
        event_type = types.get(letter.event_id)
        if event_type is not None and event_type not in history.mortal:
            yield f"event {letter.event_id} ({event_type}) died of {letter.reason!r}"


def nothing_grows(history: History) -> Iterator[str]:
    """Descriptors, threads, memory and keys of a long run stay level."""
    for slope in history.slopes:
        if slope.last > slope.first + slope.allowed:
            yield (
                f"{slope.name} grew from {slope.first:.0f} to {slope.last:.0f}; "
                f"{slope.allowed:.0f} more are allowed"
            )


def _remembered(history: History, records: list[Settled]) -> list[Settled]:
    return [each for each in records if not forgotten(history, each.time)]


def forgotten(history: History, time: float) -> bool:
    """Whether Redis may know nothing of what it was told then."""
    return any(
        each.forgets and each.begin - CLOCKS <= time <= each.end + TELLING
        for each in history.disturbances
    )


def business_keys(history: History) -> dict[str, str]:
    """Event id -> its business key."""
    return {
        push.event_id: push.key
        for push in history.pushes
        if push.key and push.event_type == history.business
    }
