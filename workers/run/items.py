"""What a pool is told of one event. The claim stays with the main process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from flybridge.workers.claim.tries import NO_TRIES, Try

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run


class Item(NamedTuple):
    """One event for the handlers of a pool."""

    event_id: str
    event_type: str
    envelope: bytes
    attempt: int
    """1 for the first."""
    marks: Mapping[str, str]
    """Handler -> "" if it succeeded earlier, "reason\\nerror" if it was given up."""
    born: float | None
    """Monotonic seconds, on this host, from which the event's age counts; None: nobody knows."""
    traceparent: str
    tracestate: str
    tries: Mapping[str, Try] = NO_TRIES
    """Handlers that want another attempt on their own time, where several share the event."""


def item_of(run: Run, traceparent: str) -> Item:
    """What the pool is told of a claimed event, and of the span that its handlers' belong to."""
    entry = run.pending.entry
    return Item(
        entry.event_id,
        entry.event_type,
        entry.envelope,
        run.attempt,
        run.marks,
        run.born,
        traceparent,
        entry.tracestate,
        run.tries,
    )
