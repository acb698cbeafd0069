"""One client of the local Feishu: a live WebSocket that can be cut, closed or frozen."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends RST


class LocalConnection:
    """A live connection; `id` is the `device_id` of its one-time URL."""

    def __init__(self, connection_id: str, ws: ServerConnection) -> None:
        self.id = connection_id
        self.since = time.monotonic()
        self.frozen = False
        self.pushes = 0
        self._ws = ws
        self._closing: asyncio.Task[None] | None = None

    def summary(self) -> dict[str, Any]:
        """For the status page."""
        return {"id": self.id, "since": self.since, "frozen": self.frozen, "pushes": self.pushes}

    def send(self, frames: Sequence[bytes | str], *, delay: float = 0.0) -> None:
        """Write frames or text without waiting; nothing is sent when frozen or closed."""
        if delay:
            asyncio.get_running_loop().call_later(delay, self.send, frames)
            return
        if self.frozen:
            return
        for frame in frames:
            # broadcast is the synchronous send of websockets, here to one connection.
            broadcast([self._ws], frame)

    def cut(self) -> None:
        """Reset the TCP connection, if it still stands."""
        if self._ws.transport.is_closing():
            return
        raw = self._ws.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._ws.transport.abort()

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""
        self._closing = asyncio.get_running_loop().create_task(self._ws.close(code, reason))

    def freeze(self, seconds: float) -> None:
        """Stop reading and writing; cut the connection after `seconds`."""
        self.frozen = True
        self._ws.transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self.cut)
