"""The consumer groups of an app: where each stands, and how one that nobody needs is forgotten.

A group holds what it has not acknowledged; see `bridge.trimming`. It reads no events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from bridge.streams import Keys

AT_WORK = 60.0
"""Seconds since a consumer's last sign of life within which its worker counts as running."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group over all event streams."""

    name: str
    streams: int
    """How many it has joined."""
    pending: int
    unread: int
    """Entries it has not read, as far as Redis can tell."""
    consumers: int
    active: int
    """Consumers whose worker gave a sign of life within `AT_WORK`."""

    @property
    def unhandled(self) -> int:
        """Entries that would be dropped with the group."""
        return self.pending + self.unread


class Groups:
    """The groups of one app.

    Args:
        redis: a client whose commands may be repeated.
        keys: of the app.
        who: stands in the audit, such as user@host.
    """

    def __init__(self, redis: Redis, keys: Keys, who: str) -> None:
        self._redis = redis
        self._keys = keys
        self._who = who

    def states(self) -> list[GroupState]:
        """Every group that has joined a stream or subscribed to one, by name."""
        found = {name: GroupState(name, 0, 0, 0, 0, 0) for name in self._subscribed()}
        for stream in self._streams():
            for info in self._infos(stream):
                name = info["name"].decode(errors="replace")
                before = found.get(name, GroupState(name, 0, 0, 0, 0, 0))
                found[name] = self._with(before, stream, info)
        return [found[name] for name in sorted(found)]

    def forget(self, name: str) -> int:
        """Remove a group from every stream, with what it had not handled; returns from how many.

        Its dead letters and the marks of what it has done stay. Repeating the call is harmless.
        """
        keys, streams = self._keys, self._streams()
        members: Any = self._redis.smembers(keys.subscriptions)
        ours = [each for each in members if each.rpartition(b"|")[0] == name.encode()]
        if ours:
            self._redis.srem(keys.subscriptions, *ours)
        left = sum(self._destroy(stream, name) for stream in streams)
        replays = [keys.replay(name, each) for each in self._members(keys.replays(name))]
        self._redis.delete(keys.replays(name), keys.retries(name), *replays)
        if left or ours:
            fields: dict[Any, Any] = {"who": self._who, "action": "forget", "group": name}
            self._redis.xadd(keys.audit, fields, maxlen=10_000)
        return left

    def _with(self, state: GroupState, stream: str, info: dict[str, Any]) -> GroupState:
        consumers: Any = self._redis.xinfo_consumers(stream, info["name"])
        active = [each for each in consumers if each["idle"] < AT_WORK * 1000]
        return GroupState(
            state.name,
            state.streams + 1,
            state.pending + info["pending"],
            state.unread + (info.get("lag") or 0),
            max(state.consumers, len(consumers)),
            max(state.active, len(active)),
        )

    def _streams(self) -> list[str]:
        return [self._keys.stream(name) for name in self._members(self._keys.types)]

    def _subscribed(self) -> set[str]:
        return {each.rpartition("|")[0] for each in self._members(self._keys.subscriptions)}

    def _members(self, key: str) -> list[str]:
        members: Any = self._redis.smembers(key)
        return sorted(member.decode(errors="replace") for member in members)

    def _infos(self, stream: str) -> list[dict[str, Any]]:
        try:
            infos: Any = self._redis.xinfo_groups(stream)
        except ResponseError:  # a type without a stream yet
            return []
        return list(infos)

    def _destroy(self, stream: str, name: str) -> int:
        try:
            return int(self._redis.xgroup_destroy(stream, name))
        except ResponseError:  # likewise
            return 0
