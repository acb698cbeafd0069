"""Data of claims: an entry, the answer of the guard to it, and how its attempt ended.

Structs, as `flybridge.bridge.store.streams.Entry` is, for the same reasons.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from flybridge.bridge.store.streams import Entry
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.claim.tries import NO_TRIES, Try


class Pending(Struct, frozen=True, gc=False):
    """An entry of a stream, delivered to this worker and not yet claimed."""

    stream: str
    entry_id: str
    entry: Entry
    line: str = ""
    """Where the entries of its key stand in order; empty if it is not ordered."""


class Run(Struct, frozen=True, gc=False):
    """The claim succeeded: run the handlers without a mark."""

    pending: Pending
    token: str
    attempt: int
    """1 for the first; where several handlers have tries of their own, the highest to be made."""
    marks: Mapping[str, str]
    """Handler -> "" if it succeeded in an earlier attempt, "reason\\nerror" if it was given up."""
    crashes: int = 0
    """Earlier attempts whose process died, as far as is known."""
    skipped: int = 0
    """Handlers marked just now because they have succeeded for the business key already."""
    fresh: bool = False
    """Claimed in bulk, so no worker had met the event before."""
    born: float | None = None
    """Monotonic seconds, on this host, from which the event's age counts; None: nobody knows."""
    tries: Mapping[str, Try] = NO_TRIES
    """Handlers that want another attempt on their own time, where several share the event."""


class Duplicate(Struct, frozen=True, gc=False):
    """The event is done or dead already."""

    pending: Pending


class Busy(Struct, frozen=True, gc=False):
    """Someone else holds the event, or its retry is not due: leave it pending."""

    pending: Pending
    left: float
    """Seconds until asking again makes sense."""


class Queued(Struct, frozen=True, gc=False):
    """Others of its line or its business key come first: leave it pending, it will become due."""

    pending: Pending


Claim = Run | Duplicate | Busy | Queued


class Settlement(Struct, frozen=True, gc=False):
    """How a claimed attempt ended."""

    run: Run
    outcome: Outcome
