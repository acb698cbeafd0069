"""Warns of lines and business keys that stand still: others wait behind the same event for long.

A retry may rightly wait for days, and a handler may hang; either way somebody should know. A thread
that meets such a wait notes the name here; a look now and then finds out what has not moved, and
logs it once in the whole group.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

STALLED_AFTER = 900.0
"""Seconds after which a line or key with the same first event stands still."""

MAX_NAMES = 1_000
"""Names in one look, at most; the others are noted again."""

FRESH = 300.0
"""Seconds for which `count` includes what this worker has seen stand still."""

log = get_logger(__name__)

Kind = Literal["line", "key"]


@dataclass(frozen=True, slots=True)
class Stall:
    """A line or a business key that stands still, and the event that it waits for."""

    kind: Kind
    name: str
    """In Redis."""
    seconds: float
    """For which it has been seen to."""
    stream: str
    entry_id: str
    event_id: str
    """Empty if its entry is gone."""
    state: str
    """`running`, `retry`, or empty: no worker has begun with it."""
    due_in: float
    """Seconds until its retry."""

    @property
    def key_hash(self) -> str:
        """A hash that stands for the name in logs, for a key may hold anything."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:12]

    @property
    def waits_for(self) -> str:
        """What the first event waits for, in words."""
        if self.state == "retry":
            return f"its retry, due in {self.due_in:.0f} s" if self.due_in else "a worker, to retry"
        return "its handler to end" if self.state == "running" else "a worker to begin with it"

    def sentence(self, group: str) -> str:
        """For people."""
        what = "an order (ordered_by)" if self.kind == "line" else "a business key (dedup_by)"
        return (
            f"{what}, key {self.key_hash}, has stood still for {self.seconds:.0f} s: event "
            f"{self.event_id or '?'} comes first and waits for {self.waits_for}; {self.cure(group)}"
        )

    def cure(self, group: str) -> str:
        """What to do, in a sentence."""
        return (
            "see why it takes so long; to give it up, so that the others go on: "
            f"redis-cli XACK {self.stream} {group} {self.entry_id}"
        )


class Stalls:
    """The stalls of a group that one worker meets."""

    def __init__(self, redis: Redis, keys: Keys, group: str) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._met: dict[str, Kind] = {}
        self._still: dict[str, float] = {}

    @property
    def count(self) -> int:
        """Lines and keys that this worker has seen stand still of late."""
        past = time.monotonic() - FRESH
        return sum(at > past for at in list(self._still.values()))

    def met(self, kind: Kind, names: Iterable[str]) -> None:
        """Note that events wait there; callable from any thread."""
        for name in names:
            if len(self._met) < MAX_NAMES:
                self._met[name] = kind

    def look(self) -> None:
        """Log what stands still; called by one thread, every minute or so.

        Raises:
            redis.RedisError: what was met is met again.
        """
        met, self._met = self._met, {}
        now = time.monotonic()
        self._still = {name: at for name, at in self._still.items() if at > now - FRESH}
        for stall, is_new in looked(self._redis, self._keys, self._group, met, note=True):
            self._still[stall.name] = now
            if is_new:
                self._tell(stall)

    def _tell(self, stall: Stall) -> None:
        log.warning(
            "line.stalled" if stall.kind == "line" else "business_key.stalled",
            key=stall.key_hash,
            event_id=stall.event_id,
            entry=stall.entry_id,
            stream=stall.stream,
            since=round(stall.seconds),
            waits_for=stall.waits_for,
            hint=stall.cure(self._group),
        )


def stalled(redis: Redis, keys: Keys, group: str) -> list[Stall]:
    """What stands still in a group, the longest first; for people.

    Raises:
        redis.RedisError: Redis could not be asked.
    """
    names: Any = redis.hkeys(keys.stalls(group))
    prefix = f"{keys.order(group)}:"
    kinds: dict[str, Kind] = {
        name: "line" if name.startswith(prefix) else "key"
        for name in (each.decode(errors="replace") for each in names)
    }
    found = [stall for stall, _ in looked(redis, keys, group, kinds, note=False)]
    return sorted(found, key=lambda stall: -stall.seconds)


def looked(
    redis: Redis, keys: Keys, group: str, kinds: dict[str, Kind], *, note: bool
) -> list[tuple[Stall, bool]]:
    """Those of them that stand still, and whether nobody was told so before."""
    script, prefix, seen = load("watch"), keys.states(group), keys.stalls(group)
    calls = [
        Call(script, (seen, name, prefix), (kind, int(STALLED_AFTER * 1000), int(note)))
        for name, kind in kinds.items()
    ]
    answers = run_all(redis, calls) if calls else []
    return [
        (_stall(kinds[name], name, answer), answer[1] == 1)
        for name, answer in zip(kinds, answers, strict=True)
        if isinstance(answer, list)
    ]


def _stall(kind: Kind, name: str, answer: Sequence[Any]) -> Stall:
    since, _, *texts, left = answer
    stream, entry_id, event_id, state = (each.decode(errors="replace") for each in texts)
    return Stall(kind, name, since / 1000, stream, entry_id, event_id, state, left / 1000)
