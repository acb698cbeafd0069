"""What the bridge's parts are given in tests in place of those around them."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from flybridge.bridge.leadership.election import Lost
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.process.task_watch import TaskWatch
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.heartbeat import Pulse
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.bridge.store.streams import Keys


class Candidate:
    """Stands for the lease unless told otherwise."""

    def __init__(self) -> None:
        self.stands = True
        self.times_asked = 0
        self.losses: list[Lost] = []

    def may_lead(self) -> bool:
        return self.stands

    def asked(self) -> None:
        self.times_asked += 1

    def lost(self, lost: Lost) -> None:
        self.losses.append(lost)


class Leadership:
    """Leads unless told otherwise."""

    def __init__(self) -> None:
        self.is_mine = True
        self.terms: list[int] = []

    def leads(self) -> bool:
        return self.is_mine

    def fenced(self, term: int) -> None:
        self.terms.append(term)


class Room:
    """Has room unless told otherwise."""

    def __init__(self) -> None:
        self.full = False
        self.refusals = 0

    def refused(self) -> None:
        self.refusals += 1


def publisher_of(
    redis: Redis,
    keys: Keys,
    leadership: Leadership | None = None,
    room: Room | None = None,
    **options: Any,
) -> Publisher:
    around = (leadership or Leadership(), room or Room(), TaskWatch(), Subscribers())
    return Publisher(redis, keys, *around, **options)


class Board:
    """Takes no notice of changes."""

    def change(self) -> None:
        pass


class Receiver:
    """Takes what a connection brings, and does nothing with it."""

    def on_delivery(self, delivery: Delivery) -> None:
        pass

    def on_rejected(self, rejected: Rejected) -> None:
        pass

    def on_pulse(self, pulse: Pulse) -> None:
        pass

    def on_text(self, kind: str, text: str) -> None:
        pass
