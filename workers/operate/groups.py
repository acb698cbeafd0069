"""The consumer groups of an app: shows how far each has come, and forgets one that nobody needs.

A group holds entries in their streams until it has acknowledged them; see
`flybridge.bridge.housekeeping.trimming`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from flybridge.bridge.store.lifetimes import UNSETTLED
from flybridge.bridge.store.redis_rights import is_denied
from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.streams import EVERYTHING, Keys, subscriber
from flybridge.handlers.types import domain
from flybridge.workers.group.counting import Count, count_after
from flybridge.workers.group.presence import AT_WORK, present
from flybridge.workers.operate.stored import PAGE, members, scan

LEFT = b"left"
"""The consumer that holds what workers left behind; no worker has this name."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one group is in one stream."""

    group: str
    joined: bool
    pending: int
    unread: Count
    """All of the stream for a group that has subscribed and not joined."""
    consumers: frozenset[str] = frozenset()
    """Consumers with a sign of life within `AT_WORK`."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group over all event streams."""

    name: str
    reads: tuple[str, ...]
    """What it has subscribed to, in the words of `flybridge.bridge.store.streams.subscriber`;
    nothing twice."""
    streams: int
    """How many event streams it has joined."""
    pending: int
    """Of its replayed events, too."""
    unread: Count
    """Of its replayed events, too."""
    workers: tuple[str, ...]
    """Names of those at work: the workers that say so, and consumers that read."""

    @property
    def unhandled(self) -> Count:
        """Entries that would be lost with the group."""
        return Count(self.pending) + self.unread


class Groups:
    """The groups of one app.

    Args:
        who: stands in the audit, such as user@host.
    """

    def __init__(self, redis: Redis, keys: Keys, who: str) -> None:
        self._redis = redis
        self._keys = keys
        self._who = who

    def states(self) -> list[GroupState]:
        """Every group that has joined a stream or subscribed to one, by name.

        It looks through all keys of Redis, which takes a second a million.
        """
        subscriptions = members(self._redis, self._keys.subscriptions)
        standings = [
            each for stream in self._streams() for each in self._standings(stream, subscriptions)
        ]
        names = {*map(_group, subscriptions), *(each.group for each in standings)}
        return [self._state(name, subscriptions, standings) for name in sorted(names)]

    def unread(self) -> dict[str, int]:
        """Event type -> how many events are kept that no group reads."""
        subscriptions = members(self._redis, self._keys.subscriptions)
        found = {
            stream.removeprefix(self._keys.events): int(self._redis.xlen(stream))
            for stream in self._streams()
            if not self._standings(stream, subscriptions)
        }
        return {event_type: count for event_type, count in found.items() if count}

    def knows(self, name: str) -> bool:
        """Whether there is, or was, such a group: it subscribed, joined a stream or left dead
        letters. Cheaper than `states`."""
        keys = self._keys
        if name in map(_group, members(self._redis, keys.subscriptions)):
            return True
        if self._redis.exists(keys.dead(name), keys.workers(name), keys.replays(name)):
            return True
        streams = (keys.stream(each) for each in members(self._redis, keys.types))
        return any(
            _text(info["name"]) == name for stream in streams for info in self._joined(stream)
        )

    def forget(self, name: str) -> int:
        """Remove a group from every stream, with what it had not handled; returns from how many.

        Its dead letters and the marks of what it has done stay, and how far it had come: if it is
        back, it begins there, or the retention back. Repeating the call is harmless.
        """
        keys, streams = self._keys, self._streams()
        ours = [each for each in members(self._redis, keys.subscriptions) if _group(each) == name]
        if ours:
            self._redis.srem(keys.subscriptions, *ours)
        self._redis.delete(keys.starts(name))
        script, joined = load("leave_group"), keys.joined(name)
        calls = [Call(script, (stream, joined), (name,)) for stream in streams]
        left = sum(int(answer == 1) for answer in run_all(self._redis, calls))
        replays = [keys.replay(name, each) for each in members(self._redis, keys.replays(name))]
        for stream in replays:
            self._expire_states(name, stream)
        found = [f"{keys.order(name)}:*", f"{keys.retries(name)}:*"]
        others = [key for each in found for key in self._redis.scan_iter(each, count=1000)]
        others += [keys.retries(name), keys.clock(name), keys.stalls(name)]
        self._redis.delete(keys.replays(name), *replays, *others)
        if left or ours:
            self._write_audit("who", self._who, "action", "forget", "group", name)
        return left

    def _write_audit(self, *fields: str) -> None:
        """Write even where Redis is full, for forgetting a group makes room."""
        entry: tuple[str | int, ...] = ("XADD", "MAXLEN", "~", 10_000, "*", *fields)
        run_all(self._redis, [Call(load("write_when_full"), (self._keys.audit,), entry)])

    def _expire_states(self, name: str, stream: str) -> None:
        """Expire the states of replayed events that will not run: a replay sets no expiry."""
        entries = scan(self._redis, stream)
        while page := list(itertools.islice(entries, PAGE)):
            with self._redis.pipeline(transaction=False) as pipeline:
                for entry in page:
                    pipeline.expire(self._keys.state(name, entry.event_id), UNSETTLED, nx=True)
                pipeline.execute()

    def _state(
        self, name: str, subscriptions: Iterable[str], standings: Iterable[Standing]
    ) -> GroupState:
        words = {each.rpartition("|")[2] for each in subscriptions if _group(each) == name}
        ours = [each for each in standings if each.group == name]
        replays = self._replays(name)
        workers = {worker.name for worker in present(self._redis, self._keys, name)}
        return GroupState(
            name,
            reads=_without_repetition(words),
            streams=sum(each.joined for each in ours),
            pending=sum(each.pending for each in (*ours, *replays)),
            unread=sum((each.unread for each in (*ours, *replays)), Count()),
            workers=tuple(sorted(workers.union(*(each.consumers for each in ours)))),
        )

    def _standings(self, stream: str, subscriptions: Iterable[str]) -> list[Standing]:
        """Of the groups that have joined a stream, and of those that have only subscribed."""
        found = [self._standing(stream, info) for info in self._joined(stream)]
        event_type = stream.rpartition(":")[2]
        readers = {subscriber(each, event_type, domain(event_type)) for each in subscriptions}
        away = readers - {each.group for each in found} - {""}
        everything = Count(int(self._redis.xlen(stream)))
        return found + [Standing(name, False, 0, everything) for name in sorted(away)]

    def _replays(self, name: str) -> list[Standing]:
        """Of a group in its replay streams."""
        types = members(self._redis, self._keys.replays(name))
        return [self._replay(name, self._keys.replay(name, each)) for each in types]

    def _replay(self, name: str, stream: str) -> Standing:
        for info in self._joined(stream):
            if _text(info["name"]) == name:
                return self._standing(stream, info)
        return Standing(name, False, 0, Count(int(self._redis.xlen(stream))))

    def _joined(self, stream: str) -> list[dict[str, Any]]:
        """What Redis says of the groups of a stream; nothing where there is no stream."""
        try:
            infos: Any = self._redis.xinfo_groups(stream)
        except ResponseError as error:
            if is_denied(error):
                raise
            return []
        return list(infos)

    def _standing(self, stream: str, info: dict[str, Any]) -> Standing:
        consumers: Any = self._redis.xinfo_consumers(stream, info["name"])
        active = {
            _text(each["name"])
            for each in consumers
            if each["idle"] < AT_WORK * 1000 and each["name"] != LEFT
        }
        name, unread = _text(info["name"]), self._unread(stream, info)
        return Standing(name, True, info["pending"], unread, frozenset(active))

    def _unread(self, stream: str, info: dict[str, Any]) -> Count:
        lag = info.get("lag")
        if lag is None:
            return count_after(self._redis, stream, _text(info["last-delivered-id"]))
        return Count(lag)

    def _streams(self) -> list[str]:
        """All event streams, also those that a worker made before the first event."""
        found = self._redis.scan_iter(self._keys.events + "*", count=1000, _type="stream")
        return sorted({_text(stream) for stream in found})


def _group(subscription: str) -> str:
    return subscription.rpartition("|")[0]


def _without_repetition(words: set[str]) -> tuple[str, ...]:
    """Without the types that a queue covers anyhow, and the queues when there is everything."""
    if EVERYTHING in words:
        return (EVERYTHING,)
    kinds = [(word, *word.partition(":")[::2]) for word in sorted(words)]
    return tuple(
        word for word, kind, name in kinds if kind != "type" or f"queue:{domain(name)}" not in words
    )


def _text(name: bytes) -> str:
    """Decode a name, which may be anything where somebody wrote it by hand."""
    return name.decode(errors="replace")
