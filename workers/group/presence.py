"""Which workers of a group are running: each says so every other second, until it stops.

Redis' consumers do not tell: there is none before the first entry, and Redis 7.0 does not count a
read that brought nothing as a sign of life.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from flybridge.bridge.store.lifetimes import mark_ttl
from flybridge.bridge.store.scripts import Call, is_spoilt, load, run_all
from flybridge.bridge.store.spoilt_keys import SpoiltKeys, spoilt
from flybridge.bridge.store.streams import Keys
from flybridge.workers.routes.coverage import NOTHING, Coverage, Sighting

BEAT_PERIOD = 2.0
"""Seconds between two signs of life."""

AT_WORK = 60.0
"""Seconds after its last sign of life within which a worker counts as running."""

HANDLED_REMEMBERED = 86_400.0
"""Seconds for which the group remembers what its workers have handled."""


@dataclass(frozen=True, slots=True)
class Worker:
    """The record of a running worker."""

    name: str
    """Its consumer's, new at every start."""
    group: str = ""
    host: str = ""
    pid: int = 0
    started_at: int = 0
    """Unix ms by its host's clock, for people; who is there is judged by Redis' clock."""
    queues: tuple[str, ...] = ()


class Presence:
    """Announces one worker, and with the same call what its group reads.

    Args:
        name: of the worker's consumer.
        retention: seconds, as the guard has it.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        name: str,
        spoilt: SpoiltKeys,
        retention: float = 86_400.0,
    ) -> None:
        self._redis = redis
        self._marks = keys.marks(group)
        self._mark_ttl = mark_ttl(retention)
        self._spoilt = spoilt
        self._subscriptions = keys.subscriptions
        self._workers = keys.workers(group)
        self._handled = keys.handled(group)
        self._worker = Worker(name, group, platform.node(), os.getpid(), int(time.time() * 1000))
        self._said: tuple[frozenset[str], bytes, bytes] | None = None
        self._coverage = NOTHING
        self._records: set[bytes] = set()
        self._decoded: dict[bytes, Coverage] = {}
        self.sightings: tuple[Sighting, ...] = ()
        """What the workers of the group handle or have handled, this one included."""

    def tell(self, covered: frozenset[str], coverage: Coverage) -> None:
        """Say what this worker reads and handles, at once if that is new."""
        worker = replace(self._worker, queues=coverage.queues)
        new = (covered, msgspec.json.encode(worker), coverage.to_json())
        if new != self._said:
            # A handler that was taken out here is not waited for; workers that still have it say so
            # within a beat. A queue that is not read for a moment changes nothing.
            if self._said and coverage.handlers != self._coverage.handlers:
                self._remove(self._handled, {self._said[2]})
            self._coverage = coverage
            self._say(*new)
            self._said = new
            self._remove(self._workers, self._records - {new[1]})

    def beat(self) -> None:
        """Repeat what `tell` said last, if anything."""
        if self._said:
            self._say(*self._said)

    def look(self) -> Sequence[Sighting]:
        """What the workers of the group handle at this moment; of a spoilt key what was known.

        Raises:
            redis.RedisError: nobody knows; ask again.
        """
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zrange(self._handled, 0, -1, withscores=True)
            answers: Any = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if is_spoilt(answer):
                self._spoilt.tell({self._handled: "zset"}, answer)
                return self.sightings
            if isinstance(answer, Exception):
                raise answer
        (seconds, micros), handled = answers
        now = seconds * 1000 + micros // 1000
        return self._saw({each: now - told for each, told in handled})

    def withdraw(self) -> None:
        """Remove the records of this worker."""
        self._remove(self._workers, self._records)

    def _remove(self, key: str, members: Collection[bytes]) -> None:
        if members:
            try:
                self._redis.zrem(key, *members)
            except ResponseError as error:
                self._judge(error)

    def _say(self, covered: frozenset[str], record: bytes, coverage: bytes) -> None:
        self._records.add(record)
        group = self._worker.group
        members = (f"{group}|{each}" for each in sorted(covered))
        waits = (int(AT_WORK * 1000), int(HANDLED_REMEMBERED * 1000))
        told: tuple[str | bytes | int, ...] = (record, coverage, *waits, self._mark_ttl, *members)
        keys = (self._subscriptions, self._workers, self._handled, self._marks)
        (answer,) = run_all(self._redis, [Call(load("subscribe"), keys, told)])
        if self._judge(answer):
            # The script returns the ages as integers of ms.
            self._saw(dict(zip(answer[::2], answer[1::2], strict=True)))

    def _saw(self, ages: Mapping[bytes, float]) -> tuple[Sighting, ...]:
        before = self._decoded
        # Both are replaced as a whole, for several threads use them.
        decoded = {each: before.get(each) or Coverage.from_json(each) for each in ages}
        seen = tuple(Sighting(decoded[each], ms / 1000) for each, ms in ages.items())
        self._decoded, self.sightings = decoded, seen
        return seen

    def _judge(self, answer: Any) -> bool:
        """Whether Redis has done it; a key of a wrong type is logged."""
        kinds = ("set", "zset", "zset", "zset")
        names = (self._subscriptions, self._workers, self._handled, self._marks)
        keys = dict(zip(names, kinds, strict=True))
        if is_spoilt(answer):
            self._spoilt.tell(keys, answer)
            return False
        if isinstance(answer, Exception):
            raise answer
        for key in keys:
            self._spoilt.well(key)
        return True


def present(redis: Redis, keys: Keys, group: str) -> list[Worker]:
    """The workers of a group that are there, by name.

    Raises:
        StreamSpoilt: the key is of a wrong type.
    """
    now: Any = redis.time()
    # Records with a later time were written while Redis' clock was ahead, and not since.
    first, last = (now[0] - AT_WORK) * 1000, (now[0] + AT_WORK) * 1000
    try:
        records: Any = redis.zrangebyscore(keys.workers(group), first, last)
    except ResponseError as error:
        if not is_spoilt(error):
            raise
        raise spoilt(keys.workers(group), error) from error
    # Of two records of one worker the later one holds.
    found = {worker.name: worker for worker in map(_worker, records)}
    return [found[name] for name in sorted(found)]


def _worker(record: bytes) -> Worker:
    try:
        return msgspec.json.decode(record, type=Worker)
    except msgspec.DecodeError:  # a reader in another language may put down what it likes
        return Worker(record.decode(errors="replace"))
