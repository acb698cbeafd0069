"""Pushes what is due, each event to a connection chosen at random, with one timer for all."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Mapping

from flybridge.bridge.local.feishu import text, wire
from flybridge.bridge.local.feishu.connection import LocalConnection
from flybridge.bridge.local.feishu.faults import Faults
from flybridge.bridge.local.feishu.ledger import Ledger
from flybridge.bridge.local.feishu.pushes import Push

_BATCH = 200  # pushes in one turn of the loop, so that acks are read meanwhile
_RANDOM = secrets.SystemRandom()


class Pump:
    """The sending side of one local Feishu. Call `wake` after anything that may have made work.

    Args:
        text_dialect: push text. It has no ack: what was sent counts as acked.
    """

    def __init__(
        self,
        ledger: Ledger,
        connections: Mapping[str, LocalConnection],
        faults: Faults,
        numbers: wire.Numbers,
        fragment_size: int,
        *,
        text_dialect: bool = False,
    ) -> None:
        self._ledger = ledger
        self._connections = connections
        self._faults = faults
        self._numbers = numbers
        self._fragment_size = fragment_size
        self._text = text_dialect
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Look at the ledger in the next turn of the loop; many calls in one turn cost one look."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._run)

    def close(self) -> None:
        """Push nothing more."""
        for handle in (self._soon, self._later):
            if handle:
                handle.cancel()

    def _run(self) -> None:
        self._soon = None
        now = time.monotonic()
        self._ledger.expire(now)
        connections = list(self._connections.values())
        for push in self._ledger.take_due(now, _BATCH):
            self._push(push, connections, now)
        self._sleep(now)

    def _sleep(self, now: float) -> None:
        if self._later:
            self._later.cancel()
        timer = self._ledger.next_timer()
        loop = asyncio.get_running_loop()
        self._later = None if timer is None else loop.call_later(max(0.0, timer - now), self._run)

    def _push(self, push: Push, connections: list[LocalConnection], now: float) -> None:
        if not connections:
            self._ledger.unreachable(push, now)
            return
        copies, push.copies = push.copies * (self._faults.take("duplicate") or 1), 1
        for _ in range(copies):
            # Feishu ("cluster mode"): one randomly chosen connection, equal weights.
            connection = _RANDOM.choice(connections)
            if self._text:
                self._tell(push, connection, now)
            else:
                self._deliver(push, connection, now)

    def _tell(self, push: Push, connection: LocalConnection, now: float) -> None:
        message_id = str(uuid.uuid4())
        self._ledger.sent(push, message_id, connection.id, now)
        connection.pushes += 1
        connection.send([text.event(push.payload)], delay=self._faults.take("delay") or 0.0)
        self._ledger.answered(message_id, connection.id, 200, now)

    def _deliver(self, push: Push, connection: LocalConnection, now: float) -> None:
        message_id = str(uuid.uuid4())
        held_back = bool(self._faults.take("drop_fragment"))
        size = (
            min(self._fragment_size, (len(push.payload) + 1) // 2)
            if held_back
            else self._fragment_size
        )
        encoded = wire.data_frames(
            push.payload,
            self._numbers,
            kind=push.kind,
            message_id=message_id,
            trace_id=push.event_id,
            fragment_size=size,
        )
        self._ledger.sent(push, message_id, connection.id, now)
        connection.pushes += 1
        delay = self._faults.take("delay") or 0.0
        connection.send(encoded[:-1] if held_back else encoded, delay=delay)
