"""Brings events to a group again: dead letters, and windows of the event streams.

An event keeps its id, so the guard's marks hold: what was done is not done again unless asked for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from flybridge.bridge.errors import BridgeError
from flybridge.bridge.store.lifetimes import MARKER_TTL
from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.streams import OTHER, Keys
from flybridge.handlers.registry import Registry
from flybridge.handlers.types import matches
from flybridge.workers.operate.letters import answer_key
from flybridge.workers.operate.stored import Stored, members, scan


class WindowEmpty(BridgeError):
    """There is nothing to replay, or no group that would read it."""


BATCH = 100
"""Events in one pipeline at most."""

MOVED = "moved"

Action = Literal["replay", "refeed", "again"]
"""Replay a dead letter; give an event again that is not done; give any event again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one replay."""

    item: Stored
    result: str
    """`moved`, `gone`, `changed`, `spoilt`, `unreadable`, `handler`, `unknown`, or the state that
    forbids it: `done`, `running`, `retry`, `dead`."""
    detail: str = ""

    @property
    def moved(self) -> bool:
        return self.result == MOVED


Judge = Callable[[Stored], Answer | None]
"""Refuses an event before Redis is asked; None: it may be replayed."""


class Pace:
    """Keeps a replay below a rate, a batch at a time.

    Args:
        rate: events per second.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.batch = max(1, min(BATCH, int(rate / 5)))
        """Events to replay at once: a fifth of a second's."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()

    def spent(self, events: int) -> None:
        """Wait until the events just replayed are within the rate."""
        now = self._clock()
        self._free = max(self._free, now) + events / self._rate
        if self._free > now:
            self._sleep(self._free - now)


class Replayer:
    """Replays for one group.

    Args:
        redis: a client whose commands may be repeated; the script bears it.
        who: stands in the audit, such as user@host.
        pace: how fast; None for as fast as Redis takes it.
        dry_run: change nothing, but answer as if.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        who: str,
        *,
        pace: Pace | None = None,
        dry_run: bool = False,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._who = who
        self._pace = pace
        self._dry_run = dry_run
        self._types = frozenset(members(redis, keys.types))

    def replay(self, letters: Iterable[Stored], registry: Registry | None) -> Iterator[Answer]:
        """Replay dead letters: of each, the handlers that had not succeeded.

        Args:
            registry: must have the handler that gave the event up; None: no matter.

        Raises:
            redis.RedisError: some of the batch may have been replayed. Repeat the command: what was
                replayed is not replayed again.
        """

        def judge(letter: Stored) -> Answer | None:
            handler = missing_handler(letter, registry) if registry else ""
            return Answer(letter, "handler", handler) if handler else None

        return self._run(letters, "replay", judge)

    def refeed(
        self, entries: Iterable[Stored], marks_since: int, *, again: bool
    ) -> Iterator[Answer]:
        """Give events of the streams to the group anew, with all their handlers.

        Args:
            marks_since: Unix ms; whether an older event is done nobody knows.
            again: also those, and those that are done.

        Raises:
            redis.RedisError: see `replay`.
        """

        def judge(entry: Stored) -> Answer | None:
            return Answer(entry, "unknown") if entry.at < marks_since and not again else None

        return self._run(entries, "again" if again else "refeed", judge)

    def _run(self, items: Iterable[Stored], action: Action, judge: Judge) -> Iterator[Answer]:
        source = iter(items)
        size = self._pace.batch if self._pace else BATCH
        while batch := list(itertools.islice(source, size)):
            judged = [_unreadable(item) or judge(item) for item in batch]
            calls = [
                self._call(item, action)
                for item, answer in zip(batch, judged, strict=True)
                if answer is None
            ]
            results = iter(run_all(self._redis, calls) if calls else ())
            answers = [
                answer or _answer(item, next(results))
                for item, answer in zip(batch, judged, strict=True)
            ]
            yield from answers
            if self._pace and not self._dry_run:
                self._pace.spent(sum(answer.moved for answer in answers))

    def _call(self, item: Stored, action: Action) -> Call:
        keys, group = self._keys, self._group
        # As for the events themselves: unknown types do not get streams of their own.
        name = item.event_type if item.event_type in self._types else OTHER
        return Call(
            load("replay"),
            (
                item.stream,
                keys.state(group, item.event_id),
                keys.replay(group, name),
                keys.replays(group),
                keys.audit,
                answer_key(keys),
            ),
            (action, item.id, item.event_id, name, group, self._who, int(self._dry_run)),
        )


def _unreadable(item: Stored) -> Answer | None:
    return Answer(item, "unreadable", item.fault) if item.fault else None


def _answer(item: Stored, result: Any) -> Answer:
    if isinstance(result, Exception):
        return Answer(item, "spoilt", str(result))
    return Answer(item, result.decode())


def missing_handler(letter: Stored, registry: Registry) -> str:
    """The handler that gave the event up, if no handler of that name is loaded for its type."""
    handler = letter.text("handler")
    loaded = {registration.name for registration in registry.lookup(letter.event_type)}
    return "" if not handler or handler in loaded else handler


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time of the event streams, to be given to a group once more."""

    redis: Redis
    keys: Keys
    group: str
    first: int
    """Unix ms, inclusive."""
    last: int
    """Unix ms, inclusive."""
    event_type: str = ""
    """A type or a pattern; empty for all."""

    def check(self) -> None:
        """Make sure that there is something to replay, and somebody to replay it to.

        Raises:
            WindowEmpty: there is no such stream, or the group has never read one.
        """
        names = self._streams()
        if not names:
            sought = f"event of type {self.event_type}" if self.event_type else "event"
            known = ", ".join(self._known()) or "none"
            raise WindowEmpty(f"no {sought} has ever come; types seen: {known}")
        with self.redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.xinfo_groups(self.keys.stream(name))
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        groups = {
            group["name"].decode()
            for answer in answers
            if isinstance(answer, list)
            for group in answer
        }
        if self.group not in groups:
            known = ", ".join(sorted(groups)) or "none"
            raise WindowEmpty(
                f"no worker of group {self.group} has ever read these events (groups: {known}); "
                "give another --group, or start a worker of it, which --from gives what came before"
            )

    def entries(self) -> Iterator[Stored]:
        """Its entries, one stream after the other, each the oldest first."""
        for name in self._streams():
            stream = self.keys.stream(name)
            for item in scan(self.redis, stream, f"{self.first}-0", str(self.last)):
                if not self.event_type or matches(self.event_type, item.event_type):
                    yield item

    def _known(self) -> list[str]:
        return members(self.redis, self.keys.types)

    def _streams(self) -> list[str]:
        return [
            name
            for name in self._known()
            if not self.event_type or name == OTHER or matches(self.event_type, name)
        ]


def marks_since(now: int, kept: Mapping[int, int]) -> int:
    """Unix ms: the done or dead marks of events that came later still exist.

    Args:
        now: Unix ms.
        kept: seconds for which workers keep marks -> Unix ms when one of them was last there.
    """
    known = kept or {MARKER_TTL: now}
    return max(min(seen, now - seconds * 1000) for seconds, seen in known.items())


def marks_kept(redis: Redis, keys: Keys, group: str) -> dict[int, int]:
    """What `marks_since` needs to know of a group, as its workers noted it: this command may run
    with another retention than they do.
    """
    said: Any = redis.zrange(keys.marks(group), 0, -1, withscores=True)
    return {int(seconds): int(seen) for seconds, seen in said if seconds.isdigit()}
