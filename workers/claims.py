"""What the guard says of an entry, and what it is told of its end. Pure data.

It claims nothing: `guard.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.streams import Entry
from workers.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Pending:
    """An entry of a stream, delivered to this worker and not yet claimed."""

    stream: str
    entry_id: str
    entry: Entry
    line: str = ""
    """Where the entries of its key stand in order; empty if it is not ordered."""


@dataclass(frozen=True, slots=True)
class Run:
    """The claim succeeded: run the handlers without a mark."""

    pending: Pending
    token: str
    attempt: int
    """1 for the first."""
    marks: Mapping[str, str]
    """Handler -> "" if it succeeded in an earlier attempt, "reason\\nerror" if it was given up."""
    crashes: int = 0
    """Earlier attempts whose process died, as far as is known: this event may be what kills it."""
    skipped: int = 0
    """Handlers marked just now because they have succeeded for the business key already."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The event is done or dead already."""

    pending: Pending


@dataclass(frozen=True, slots=True)
class Busy:
    """Someone else holds the event, or its retry is not due: leave it pending."""

    pending: Pending
    left: float
    """Seconds until asking again makes sense."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Others of its line or its business key come first: leave it pending, it will become due."""

    pending: Pending


Claim = Run | Duplicate | Busy | Queued


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a claimed attempt ended."""

    run: Run
    outcome: Outcome
    returned: bool = False
    """The handlers never started: the attempt does not count."""
