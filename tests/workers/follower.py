"""A worker that only reads: what the tests of the streams share. It claims and settles nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis import Redis

from flybridge.bridge.store.streams import Keys
from flybridge.workers.claim.claims import Pending
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.pending_list import PendingList
from flybridge.workers.intake.reader import StreamReader

IM, CONTACT = "im.message.receive_v1", "contact.user.created_v3"

SOON = 0.05
"""Seconds; an event lease short enough to wait for."""


@dataclass(frozen=True, slots=True)
class Follower:
    """What is new, and what is pending, as one consumer asks for it."""

    reader: StreamReader
    pending: PendingList

    def own(self, room: int = 100) -> list[Pending]:
        """What a lost reply left with it, however many looks it takes."""
        self.pending.doubt()
        return [item for _ in range(20) for item in self.pending.own(room)]

    def read(self, room: int) -> list[Pending]:
        """What is new, and no wait for it."""
        return self.reader.read(room, 0.01)

    def read_all(self) -> list[Pending]:
        """All that is new, however many reads it takes."""
        found: list[Pending] = []
        while new := self.read(2000):
            found += new
        return found


def follower(redis: Redis, keys: Keys, name: str, event_lease: float = 30.0) -> Follower:
    """One that follows IM and CONTACT."""
    consumer = Consumer(redis, keys, "workers", name)
    made = Follower(StreamReader(consumer, event_lease), PendingList(consumer, event_lease))
    made.reader.follow([keys.stream(IM), keys.stream(CONTACT)])
    return made


def ids(items: Iterable[Pending]) -> list[str]:
    return [item.entry.event_id for item in items]


def long_ago(redis: Redis, keys: Keys, consumer: str, entry_id: str) -> None:
    """Make it look as if this consumer had not renewed the entry for an hour."""
    redis.xclaim(keys.stream(IM), "workers", consumer, 0, [entry_id], idle=3_600_000, justid=True)


def consumers(redis: Redis, keys: Keys) -> dict[str, int]:
    """Name -> pending."""
    found: Any = redis.xinfo_consumers(keys.stream(IM), "workers")
    return {each["name"].decode(): each["pending"] for each in found}


def missing(logs: list[Any]) -> list[str]:
    """Ids of the entries that are told to be missing."""
    return [line["entry"] for line in logs if line["event"] == "entry.missing"]
