"""What waits to be sent over a WebSocket: all of one turn of the loop leaves in one write.

It does not wait for the other side; `congested` says when somebody should.
"""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

LIMIT = 1024 * 1024
"""Unsent bytes above which it is congested; some 4,000 acks."""


class Outgoing:
    """Of one connection. Once that is not open any more, what comes is dropped."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.congested = False
        self._protocol = websocket.protocol
        self._transport = websocket.transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes | str] = []

    def add(self, data: bytes | str) -> None:
        """Have this sent when this turn of the loop is over."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def flush(self) -> None:
        """Send everything now; a quarter of what the library's `send` would cost per ack."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._protocol.state is not State.OPEN or self._transport.is_closing():
            return
        for data in waiting:
            if isinstance(data, str):
                self._protocol.send_text(data.encode())
            else:
                self._protocol.send_binary(data)
        self._transport.write(b"".join(self._protocol.data_to_send()))
        self.congested = self._transport.get_write_buffer_size() > LIMIT
