"""Accepts the connections of a server that is not what the process is there for, like health and
metrics: whoever comes, and however many, it takes a few file descriptors and little time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from handlers.loggers import get_logger

MOST = 32
"""Open connections. When another comes, the oldest goes, of the address that has the most."""

LIFETIME = 10.0
"""Seconds that a connection may last, from its first byte to the last of the answer."""

PAUSE = 0.002
"""Seconds between two connections, so that a flood of requests leaves time for everything else."""

AFTER_FAILURE = 1.0
"""Seconds until another is accepted when one could not be, for want of file descriptors perhaps."""

QUIET = 60.0
"""Seconds between two log lines of one kind."""

log = get_logger("bridge.acceptor")


@dataclass(frozen=True, slots=True)
class Guest:
    """One open connection."""

    address: str
    since: float
    transport: asyncio.Transport


class Acceptor:
    """Takes the connections of a listening socket, one by one.

    Args:
        listener: not blocking; who made it closes it.
        protocol: makes the protocol of one connection.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        most: int = MOST,
        lifetime: float = LIFETIME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._most = most
        self._lifetime = lifetime
        self._clock = clock
        self._guests: list[Guest] = []
        self._told: dict[str, float] = {}

    async def run(self) -> None:
        """Accept until cancelled; connections that are open then are left alone."""
        seeing_off = asyncio.create_task(self._see_off(), name="web-lifetimes")
        try:
            while True:
                pause = PAUSE if await self._accept() else AFTER_FAILURE
                await asyncio.sleep(pause)
        finally:
            seeing_off.cancel()

    async def _accept(self) -> bool:
        """Take one connection; False when that did not work."""
        loop = asyncio.get_running_loop()
        try:
            accepted, (address, *_) = await loop.sock_accept(self._listener)
            self._make_room()
            transport, _ = await loop.connect_accepted_socket(self._protocol, accepted)
        except OSError as error:  # no file descriptors, for instance
            self._tell("web.accept_failed", error=error.strerror or str(error))
            return False
        self._guests.append(Guest(address, self._clock(), transport))
        return True

    def _make_room(self) -> None:
        self._guests = [guest for guest in self._guests if not guest.transport.is_closing()]
        if len(self._guests) < self._most:
            return
        ((busiest, _),) = Counter(guest.address for guest in self._guests).most_common(1)
        oldest = next(guest for guest in self._guests if guest.address == busiest)
        self._guests.remove(oldest)
        oldest.transport.abort()
        self._tell("web.crowded", open=self._most, address=busiest)

    async def _see_off(self) -> None:
        while True:
            await asyncio.sleep(self._lifetime / 10)
            overdue = self._clock() - self._lifetime
            for guest in self._guests:
                if guest.since < overdue:
                    guest.transport.abort()

    def _tell(self, event: str, **fields: object) -> None:
        now = self._clock()
        if now - self._told.get(event, -QUIET) >= QUIET:
            self._told[event] = now
            log.warning(event, **fields, cure="see who asks the ops port; events go on")
