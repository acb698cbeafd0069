"""Claims and settles plain events, many in one call: those that no worker has met, and successes.

Per event it costs a fraction of `claim.lua` and `settle.lua`. For an event that is not plain the
answer is False and nothing has been changed; `guard.py` uses those scripts for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from redis import Redis

from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.streams import Keys, key_part

PAGE = 200
"""Events in a call at most; Redis serves nobody else for about 2 ms."""

_encode = msgspec.msgpack.Encoder().encode


class Bulk:
    """Claims and settles plain events of one group.

    Args:
        ttl: seconds the states are kept, counted from the claim.
    """

    def __init__(self, redis: Redis, keys: Keys, group: str, ttl: int) -> None:
        self._redis = redis
        self._group = group
        self._ttl = ttl
        self._keys = keys
        self._states = keys.states(group)
        self._locks = "lock:" + keys.locks(group)
        self._signals = "lock-signal:" + keys.locks(group)

    def claim(self, events: Sequence[tuple[str, str]], lease_ms: int) -> list[bool]:
        """Claim events, given as event id and token, for their first attempt.

        Raises:
            redis.RedisError: nothing is known to be claimed; ask again.
        """
        script, keys = load("claim_fresh"), (self._states, self._locks)
        calls = [
            Call(script, keys, (_encode(page), lease_ms, self._ttl))
            for page in _pages([(key_part(event_id), token) for event_id, token in events])
        ]
        return self._answers(calls, len(events))

    def settle(self, events: Sequence[tuple[str, str, str, str]]) -> list[bool]:
        """Record successes of what `claim` claimed, given as stream, event id, token, entry id.

        Raises:
            redis.RedisError: settle the same again; what was recorded stays recorded.
        """
        script = load("settle_done")
        answers = [False] * len(events)
        places, calls = [], []
        for stream, numbers in _by_stream(events).items():
            told = [(key_part(events[n][1]), events[n][2], events[n][3]) for n in numbers]
            retries = self._keys.retries_of(self._group, stream)
            keys = (stream, retries, self._states, self._locks, self._signals)
            calls += [
                Call(script, keys, (_encode(page), self._group, self._ttl)) for page in _pages(told)
            ]
            places += numbers
        for number, answer in zip(places, self._answers(calls, len(events)), strict=True):
            answers[number] = answer
        return answers

    def _answers(self, calls: Sequence[Call], count: int) -> list[bool]:
        if not calls:
            return []
        answers: list[bool] = []
        for answer in run_all(self._redis, calls):
            if isinstance(answer, Exception):
                # A key that somebody has spoilt; claiming one by one finds out which.
                return [False] * count
            answers += [each == 49 for each in answer]
        return answers


def _pages(events: Sequence[tuple[str, ...]]) -> Iterable[Sequence[tuple[str, ...]]]:
    return (events[start : start + PAGE] for start in range(0, len(events), PAGE))


def _by_stream(events: Sequence[tuple[str, str, str, str]]) -> dict[str, list[int]]:
    streams: dict[str, list[int]] = {}
    for number, event in enumerate(events):
        streams.setdefault(event[0], []).append(number)
    return streams
