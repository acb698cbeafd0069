"""Decides where a new group begins to read the streams that exist before it subscribes to them.

A stream that comes after the subscription is always read from its first entry: the events in it
were published for this group, too. `workers/intake/group.lua` creates the groups themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from flybridge.bridge.config.times import parse
from flybridge.bridge.store.scripts import Call, is_spoilt, load, run_all
from flybridge.bridge.store.streams import Keys, subscriber
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.types import domain
from flybridge.workers.group.counting import BOUND, Count, count_after

AUTO, NOW, ALL = "auto", "now", "all"
"""Where a new group begins: with all where no other group reads, else now; now; with all."""

FIRST = "0-0"
"""The entry id before all others."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Join:
    """A stream that is there before the group begins to read it."""

    stream: str
    after: str
    """Entry id; the entries after it are given to the group."""
    old: Count
    """How many such entries there are now."""
    length: Count
    """Entries in the stream now."""

    @property
    def left_out(self) -> Count:
        """How many entries are not given to the group."""
        exact = self.old.exact and self.length.exact
        return Count(self.length.number - self.old.number if self.old.exact else 0, exact)


class Beginning:
    """Subscribes a group to its streams, on behalf of one of its workers.

    Args:
        start: `auto`, `now`, `all`, or a moment as in `flybridge.bridge.config.times`.
        started: the `moment` at which the worker started; None if that is unknown.
    """

    def __init__(
        self, redis: Redis, keys: Keys, group: str, start: str, started: int | None
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._start = start
        self._started = started
        self._begun = False

    def begin(self, covered: frozenset[str]) -> None:
        """Subscribe the group to these words, and note where it begins in what is new to it.

        Raises:
            redis.RedisError: ask again.
        """
        if not covered:
            return
        # Taken before anything else: what is published from here on is for the group.
        now = self._started if self._started and not self._begun else moment(self._redis)
        self._join(covered, now)
        self._started, self._begun = self._started or now, True

    def again(self, covered: frozenset[str]) -> None:
        """Subscribe again after Redis lost data: the group begins when the worker started."""
        if covered and self._started:
            self._join(covered, self._started)

    def _join(self, covered: frozenset[str], now: int) -> None:
        members = self._members(self._keys.subscriptions)
        ours = {each for each in members if each.rpartition("|")[0] == self._group}
        wanted = {f"{self._group}|{word}" for word in covered}
        if wanted <= ours:
            if self._start != AUTO and not self._begun:
                log.info("group.exists", group=self._group, start_from=self._start,
                         hint="it goes on where it was; start_from is for a new group")  # fmt: skip
            return
        others, joined = members - ours, self._joined()
        fresh = [
            each
            for each in sorted(self._members(self._keys.types))
            if _covers(wanted, each) and not _covers(ours, each)
            if self._keys.stream(each) not in joined
        ]
        joins: list[Join] = []
        for event_type in fresh:
            counted = sum(join.old.number for join in joins)
            with _leave_spoilt():
                joins.append(self._plan(event_type, others, now, count=counted < BOUND))
        self._note(wanted, joins)
        if not ours and not joined:
            self._tell("group.new", joins, _groups(others))
        elif joins:
            self._tell("group.reads_more", joins, "")

    def _joined(self) -> set[str]:
        """The streams that the group is in, though somebody may have removed its subscriptions."""
        with _leave_spoilt():
            noted: Any = self._redis.hgetall(self._keys.joined(self._group))
            return {stream.decode() for stream, left_at in noted.items() if not left_at}
        return set()

    def _plan(self, event_type: str, others: Iterable[str], now: int, *, count: bool) -> Join:
        stream = self._keys.stream(event_type)
        after = self._position(event_type, now, shared=_covers(others, event_type))
        length = self._length(stream)
        if after == FIRST:
            old = length
        elif count:
            old = count_after(self._redis, stream, after)
        else:
            old = Count(exact=False)
        return Join(stream, after, old, length)

    def _length(self, stream: str) -> Count:
        try:
            return Count(int(self._redis.xlen(stream)))
        except NoPermissionError:  # to read a stream, a user needs no XLEN
            return count_after(self._redis, stream, FIRST)

    def _position(self, event_type: str, now: int, *, shared: bool) -> str:
        """The id after which the group reads a stream; `shared`: another group reads it."""
        if self._start == ALL or (self._start == AUTO and not shared):
            return FIRST
        since = now if self._start in {AUTO, NOW} else parse(self._start, now)
        return f"{since - 1}-{2**64 - 1}" if since else FIRST

    def _note(self, members: Iterable[str], joins: Iterable[Join]) -> None:
        """Subscribe, and note where the group begins."""
        names = sorted(members)
        told = [text for join in joins if join.after != FIRST for text in (join.stream, join.after)]
        keys = (self._keys.subscriptions, self._keys.starts(self._group))
        (answer,) = run_all(self._redis, [Call(load("begin"), keys, (len(names), *names, *told))])
        if isinstance(answer, Exception):
            raise answer

    def _tell(self, event: str, joins: Sequence[Join], others: str) -> None:
        old = sum((join.old for join in joins), Count())
        left_out = sum((join.left_out for join in joins), Count())
        said: Mapping[str, Any] = {
            "group": self._group, "start_from": self._start, "streams": len(joins),
            "old_events": _told(old), "left_out": _told(left_out), "other_groups": others,
        }  # fmt: skip
        hint = _hint(self._group, old, left_out, others)
        if hint:
            log.warning(event, **said, hint=hint)
        else:
            log.info(event, **said)

    def _members(self, key: str) -> set[str]:
        members: Any = self._redis.smembers(key)
        return {member.decode(errors="replace") for member in members}


def moment(redis: Redis) -> int:
    """The next Unix ms by Redis' clock, once it has begun: entries that exist before this call have
    smaller ids, later ones do not. It takes a millisecond at most."""
    now = _microseconds(redis)
    following = now // 1000 + 1
    while 0 < (left := following * 1000 - now) <= 1000:
        time.sleep(left / 1e6)
        now = _microseconds(redis)
    return following


def _microseconds(redis: Redis) -> int:
    now: Any = redis.time()
    return int(now[0]) * 1_000_000 + int(now[1])


@contextmanager
def _leave_spoilt() -> Iterator[None]:
    """Leave out a key that is no stream; the reader logs it."""
    try:
        yield
    except ResponseError as error:
        if not is_spoilt(error):
            raise


def _covers(subscriptions: Iterable[str], event_type: str) -> bool:
    queue = domain(event_type)
    return any(subscriber(each, event_type, queue) for each in subscriptions)


def _groups(subscriptions: Iterable[str]) -> str:
    return " ".join(sorted({each.rpartition("|")[0] for each in subscriptions}))


def _told(count: Count) -> int | str:
    return count.number if count.exact else str(count)


def _hint(group: str, old: Count, left_out: Count, others: str) -> str:
    """What an operator should know at once, and do; empty if there is nothing."""
    forget = f"stop its workers, then: flybridge groups forget {group}"
    said = []
    if old.number:
        said.append(f"it is given {old.events} from before its start; if that is not wanted: "
                    f"{forget}, and start it with --from now")  # fmt: skip
    if left_out.number:
        said.append(f"it is not given {left_out.events} from before its start; to have those "
                    f"of the last hours: flybridge replay --from 2h --group {group}")  # fmt: skip
    if others:
        said.append(f"if its name is a mistake (there are {others}): {forget}")
    return ". ".join(said)
