"""Counts the entries that follow an id in a stream, where Redis itself does not say.

Redis gives no lag once an unread entry was deleted, or for a group that began in the middle of a
stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from flybridge.bridge.store.scripts import Call, load, run_all

PAGE = 1_000
"""Entries that one call counts at most; Redis serves nobody else for about a millisecond."""

BOUND = 10_000
"""Entries that are counted at most."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of entries, or the least that it can be."""

    number: int = 0
    exact: bool = True

    def __add__(self, other: Count) -> Count:
        return Count(self.number + other.number, self.exact and other.exact)

    def __str__(self) -> str:
        return f"{self.number:,}" if self.exact else f"{self.number:,} or more"

    @property
    def events(self) -> str:
        """With the word for them, as `1 event` and `10,000 or more events`."""
        return f"{self} event" if self == Count(1) else f"{self} events"


def count_after(redis: Redis, stream: str, entry_id: str) -> Count:
    """How many entries follow this id, up to about `BOUND`.

    Raises:
        redis.RedisError: Redis could not be asked.
    """
    start, number = f"({entry_id}", 0
    while start and number < BOUND:
        (answer,) = run_all(redis, [Call(load("count"), (stream,), (start, PAGE))])
        if isinstance(answer, Exception):
            raise answer
        number, start = number + answer[0], answer[1].decode()
    return Count(number, exact=not start)
