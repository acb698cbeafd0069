"""Makes events and has the local Feishu push them, as fast as the system takes them. No faults.

Flow control: only so many events are on their way at once. What Feishu holds back for a later rung
of its ladder does not count; the system has not got it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from random import Random
from typing import Any

from flybridge.bridge.local.feishu.pushes import Push
from flybridge.bridge.local.feishu.server import LocalFeishu
from tests.chaos.deeds import DeedsFile

WINDOW = 1000
"""Events on their way at once."""

BURST = 40
"""Events pushed at once, fifty times a second at most."""

DUPLICATES = 0.02
"""Share of events that Feishu pushes again though they were acked."""

HANDLERS = {
    "chaos.plain": ("plain",),
    "chaos.slow": ("slow",),
    "chaos.flaky": ("flaky",),
    "chaos.waiting": ("waiting",),
    "chaos.pair": ("first_of_pair", "second_of_pair"),
    "chaos.ordered": ("ordered",),
    "chaos.batched": ("batched",),
    "chaos.business": ("business",),
    "chaos.hanging": ("hanging", "beside_hanging", "later_beside_hanging"),
    "chaos.blocking": ("blocking", "beside_blocking"),
    "chaos.enduring": ("enduring", "beside_enduring"),
    "chaos.poison": ("poison",),
    "chaos.rejected": ("rejected",),
    "chaos.crash": ("crash",),
    "*": ("playing:unknown",),
}
"""Event type -> names of the handlers in `actors/playing.py`."""

MORTAL = frozenset({"chaos.poison", "chaos.rejected", "chaos.crash", "chaos.bad"})

ORDERED = "chaos.ordered"
BUSINESS = "chaos.business"

MIX = {"chaos.plain": 0.652, "chaos.slow": 0.02, "chaos.flaky": 0.05, "chaos.waiting": 0.05,
       "chaos.pair": 0.04, ORDERED: 0.05, "chaos.batched": 0.1, BUSINESS: 0.03,
       "chaos.hanging": 0.004, "chaos.blocking": 0.002, "chaos.enduring": 0.002}  # fmt: skip
"""Shares of the ordinary types; the others come by faults."""


HANGING = 0.01
"""Share of the ordered events, and of those in batches, that hang at first."""

ORDER_KEYS = 8
"""Keys among which the ordered events are."""

NEAR = 10
"""Business keys of late, of which the next event may have one once more."""

FAILING = 0.1
"""Share of the events with keys, and of those in batches, that fail at first."""


class Generator:
    """Pushes events, and remembers each push.

    Args:
        name: begins every event id.
    """

    def __init__(self, feishu: LocalFeishu, deeds: DeedsFile, random: Random, name: str) -> None:
        self.pushes: list[Push] = []
        self.times: list[float] = []
        """When each of `pushes` was first pushed."""
        self.keys: dict[str, str] = {}
        """Event id -> the key in its body, if it has one."""
        self._business_keys = 0
        self._feishu, self._deeds, self._random, self._name = feishu, deeds, random, name
        self._types, self._shares = list(MIX), list(MIX.values())
        self._recent: deque[Push] = deque(maxlen=200)
        self._open: dict[str, Push] = {}

    def push(self, event_type: str, **body: Any) -> Push:
        """Push one event of this type."""
        event_id = f"{self._name}-{len(self.pushes)}"
        push = self.push_raw(envelope(event_id, event_type, body))
        if "key" in body:
            self.keys[event_id] = body["key"]
        self._recent.append(push)
        return push

    def push_raw(self, payload: bytes) -> Push:
        """Push these bytes, readable or not."""
        push = self._feishu.push(payload)
        self.pushes.append(push)
        self.times.append(time.monotonic())
        self._open[push.event_id] = push
        return push

    def push_again(self, push: Push, times: int = 1) -> None:
        """Have Feishu push what it has pushed before."""
        for _ in range(times):
            self._feishu.push(push.payload)

    async def run(self, count: int, rate: float) -> None:
        """Push `count` ordinary events, `rate` a second at most."""
        until = len(self.pushes) + count
        begun, made = time.monotonic(), 0
        while len(self.pushes) < until:
            await asyncio.sleep(0.02)
            # What the window held back is made up for later, but not in one burst.
            due = min(int((time.monotonic() - begun) * rate) - made, BURST)
            room = min(due, WINDOW - self.on_the_way(), until - len(self.pushes))
            for _ in range(max(0, room)):
                self._push_one()
                made += 1

    def on_the_way(self) -> int:
        """Events that are with the system, or may be."""
        over = [
            event_id
            for event_id, push in self._open.items()
            # Of a business key that has succeeded, no handler says a word.
            if push.acked and (event_id in self._deeds.ended or push.event_type in ("", BUSINESS))
        ]
        for event_id in over:
            del self._open[event_id]
        return sum(push.acked or push.in_flight for push in self._open.values())

    def _push_one(self) -> None:
        (event_type,) = self._random.choices(self._types, self._shares)
        self.push(event_type, **self._body(event_type))
        if self._random.random() < DUPLICATES:
            self.push_again(self._random.choice(self._recent))

    def _body(self, event_type: str) -> dict[str, Any]:
        body: dict[str, Any] = {}
        if event_type in ("chaos.slow", "chaos.waiting"):
            body["seconds"] = round(self._random.uniform(0.02, 0.4), 3)
        if event_type in (ORDERED, BUSINESS):
            body["seconds"] = round(self._random.uniform(0.0, 0.05), 3)
            body["key"] = self._key(event_type)
        if event_type in (ORDERED, BUSINESS, "chaos.batched"):
            body["fails"] = self._random.random() < FAILING
        if event_type in ("chaos.hanging", "chaos.blocking", "chaos.enduring"):
            body["hangs"] = True
        if event_type in (ORDERED, "chaos.batched"):
            body["hangs"] = self._random.random() < HANGING
        return body

    def _key(self, event_type: str) -> str:
        if event_type == ORDERED:
            return f"key-{self._random.randrange(ORDER_KEYS)}"
        self._business_keys += self._random.random() < 0.5
        return f"business-{max(0, self._business_keys - self._random.randrange(NEAR))}"


def envelope(event_id: str, event_type: str, body: dict[str, Any], **header: Any) -> bytes:
    """A schema 2.0 envelope, as small as Feishu would make it."""
    return json.dumps(
        {
            "schema": "2.0",
            "header": {
                "event_id": event_id,
                "event_type": event_type,
                "create_time": str(int(time.time() * 1000)),
                "token": "",
                "app_id": "cli_a1b2c3d4e5f60718",
                "tenant_key": "chaos",
                **header,
            },
            "event": body,
        },
        separators=(",", ":"),
    ).encode()
