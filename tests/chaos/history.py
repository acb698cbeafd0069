"""What happened in one run of the chaos suite, as its observers saw it. It judges nothing.

All instants are seconds of the machine's monotonic clock, which no fault of ours moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

EVERYBODY = "*"
"""Stands for all actors: what hurts Redis, or the machine, hurts everybody."""

FORGOTTEN_CLAIMS = 2.5
"""Seconds in which an event may still be started by who claimed it of a Redis that then forgot it:
the event lease, and some tolerance."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """One event as the local Feishu saw it."""

    event_id: str
    event_type: str
    pushed: float
    acked: float | None
    """None: Feishu still owes it, or gave it up."""
    payload: bytes = b""
    """Only of what holds no readable event: it is known by its bytes."""
    key: str = ""
    """By which it is ordered, or the business key; empty without one."""


@dataclass(frozen=True, slots=True)
class Deed:
    """A line that a handler wrote to a file outside Redis."""

    deed: Literal["started", "finished", "failed", "crashing", "hanging", "overlapped"]
    """The last: it found another of its handler at work with the same event, or the same key."""
    handler: str
    event_id: str
    attempt: int
    actor: str
    pid: int
    time: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A worker's word that the outcome of an attempt is in Redis, or was refused."""

    event_id: str
    attempt: int
    finished: tuple[str, ...]
    verdict: str
    recorded: bool
    actor: str
    time: float


@dataclass(frozen=True, slots=True)
class SeenEntry:
    """An entry of a stream as a reader outside the system saw it."""

    stream: str
    entry_id: str
    event_id: str
    term: int
    added: float
    """By the time in the entry id."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Of the workers, or of the bridge, whose letters have a payload in place of an event id."""

    event_id: str
    reason: str
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A span in which a fault hurt some actors."""

    fault: str
    actors: frozenset[str]
    begin: float
    end: float
    keeps_nothing: bool = False
    """Nothing may be acked: no Redis ran, or fewer replicas than an ack waits for."""
    forgets: bool = False
    """What Redis was told meanwhile and did not wait for is lost: all but what was acked."""

    def touches(self, actors: frozenset[str], begin: float, end: float) -> bool:
        hurt = EVERYBODY in self.actors or bool(self.actors & actors)
        after = FORGOTTEN_CLAIMS if self.forgets else 0.0
        return hurt and self.begin <= end and self.end + after >= begin


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long the system took to be well again after one fault."""

    kind: str
    fault: str
    began: float
    ended: float | None
    """None: not as long as anyone waited."""
    limit: float
    """Seconds promised, with the tolerance for starting processes on a busy machine."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A measure that must not grow with time: its mean in the first and in the last quarter."""

    name: str
    first: float
    last: float
    allowed: float
    """How much the last may exceed the first."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process."""

    actor: str
    code: int
    time: float
    age: float
    """Seconds since its start."""


@dataclass(frozen=True, slots=True)
class History:
    """Everything about one run."""

    handlers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Event type -> the handlers that must finish it; other types have those of `*`."""
    mortal: frozenset[str] = frozenset()
    """Event types that may end as dead letters."""
    ordered: str = ""
    """The event type whose events come in order, by key."""
    business: str = ""
    """The event type whose handlers succeed once per key."""
    pushes: Sequence[Pushed] = ()
    deeds: Sequence[Deed] = ()
    settled: Sequence[Settled] = ()
    entries: Sequence[SeenEntry] = ()
    dead_letters: Sequence[DeadLetter] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    """Event id -> what Redis recorded in the end."""
    disturbances: Sequence[Disturbance] = ()
    recoveries: Sequence[Recovery] = ()
    slopes: Sequence[Slope] = ()
    exits: Sequence[Exit] = ()

    def handlers_of(self, event_type: str) -> tuple[str, ...]:
        return self.handlers.get(event_type) or self.handlers.get("*", ())
