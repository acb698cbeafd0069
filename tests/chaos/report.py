"""What a run prints at its end: numbers, then violations with their data. It judges nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.checker import Violation
from tests.chaos.history import History
from tests.chaos.play import Play

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds in seconds."""

RECOVERY = 6.0
"""Seconds after a fault in which acks may still suffer: Redis counts as full for 5 s more."""

SHOWN = 40
"""Violations that are printed; all of them are in the directory."""


def report(play: Play, history: History, violations: Sequence[Violation]) -> Iterator[str]:
    """The lines, in order."""
    yield from _faults(play)
    yield from _events(play, history)
    yield from _delays(history)
    yield from _recoveries(history)
    yield from _slopes(history)
    yield from _trouble(play)
    yield ""
    yield f"violations: {len(violations)}"
    yield from (f"  {violation}" for violation in violations[:SHOWN])


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values; 0 without any."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def _faults(play: Play) -> Iterator[str]:
    yield f"faults: {sum(play.counts.values())}"
    yield from (f"  {count:4}  {name}" for name, count in sorted(play.counts.items()))


def _events(play: Play, history: History) -> Iterator[str]:
    stats = play.feishu.stats
    states = Counter(history.states.values())
    acked = sum(push.acked is not None for push in history.pushes)
    repeated = sum(settled.verdict == "retry" for settled in history.settled)
    yield (
        f"events: {len(history.pushes)} pushed, {acked} acked, {states['done']} done, "
        f"{states['dead']} dead, {len(history.entries)} entries"
    )
    yield (
        f"  deliveries by Feishu: {stats['sent']}, of which again {stats['repushed']}; "
        f"answered 500: {stats['nacked']}, timed out: {stats['timed_out']}, cut: {stats['cut']}"
    )
    reasons = Counter(letter.reason for letter in history.dead_letters)
    yield f"  attempts: {len(history.settled)} settled, {repeated} to retry"
    yield f"  dead letters: {dict(reasons)}"


def _delays(history: History) -> Iterator[str]:
    pushed = {push.event_id: push.pushed for push in history.pushes}
    finished: dict[str, float] = {}
    for deed in history.deeds:
        if deed.deed == "finished" and deed.event_id in pushed:
            finished.setdefault(deed.event_id, deed.time - pushed[deed.event_id])
    yield from _histogram("push to first finish", finished.values())
    calm, disturbed = _ack_delays(history)
    yield _line(f"ack, no fault for {RECOVERY:g} s", calm)
    yield _line("ack, others", disturbed)


def _ack_delays(history: History) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = [], []
    spans = sorted((each.begin, each.end) for each in history.disturbances)
    for push in history.pushes:
        if push.acked is not None:
            hit = any(begin <= push.acked and end + RECOVERY >= push.pushed for begin, end in spans)
            found[hit].append(push.acked - push.pushed)
    return sorted(found[0]), sorted(found[1])


def _histogram(title: str, values: Iterable[float]) -> Iterator[str]:
    ordered = sorted(values)
    yield _line(title, ordered)
    below = 0
    for bound in BUCKETS:
        count = sum(value <= bound for value in ordered) - below
        below += count
        if count:
            yield f"  ≤ {bound:6g} s {count:8}"
    if len(ordered) > below:
        yield f"  above    {len(ordered) - below:8}"


def _line(title: str, ordered: Sequence[float]) -> str:
    p50, p99 = percentile(ordered, 0.5) * 1000, percentile(ordered, 0.99) * 1000
    most = ordered[-1] * 1000 if ordered else 0.0
    return f"{title}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {most:.0f} ms ({len(ordered)})"


def _recoveries(history: History) -> Iterator[str]:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for each in history.recoveries:
        by_kind[f"{each.kind} ({each.fault})"].append((each.ended or each.began) - each.began)
    for kind, values in sorted(by_kind.items()):
        told = ", ".join(f"{value:.2f}" for value in sorted(values)[-8:])
        yield f"{kind}: {told} s"


def _slopes(history: History) -> Iterator[str]:
    for slope in history.slopes:
        yield f"{slope.name}: {slope.first:.1f} in the first quarter, {slope.last:.1f} in the last"


def _trouble(play: Play) -> Iterator[str]:
    exits = Counter((each.actor, each.code) for each in play.cast.exits)
    yield "exits: " + ", ".join(f"{name} {code} ×{n}" for (name, code), n in sorted(exits.items()))
    for name, log in play.logs.items():
        for line, count in log.trouble.most_common(5):
            yield f"  {name} logged {count} × {line.splitlines()[0][:110]}"
