"""Runs one WebSocket connection to Feishu from the upgrade to its end.

It never reconnects: the URL of an endpoint is good for one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from flybridge.bridge.config.bounds import SMALLEST_BUFFER
from flybridge.bridge.errors import NotConnected
from flybridge.bridge.feishu.discovery import Endpoint
from flybridge.bridge.feishu.upgrade import OPEN_TIMEOUT, open_websocket
from flybridge.bridge.protocol.conversation import Conversation
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.heartbeat import Heartbeat, Pulse
from flybridge.bridge.protocol.liveness import PONG_TIMEOUT, Dead
from flybridge.bridge.protocol.text_conversation import TextDialect
from flybridge.handlers.loggers import get_logger

CLOSE_TIMEOUT = 1.0
"""Seconds that closing may take."""
WRITE_LIMIT = 1024 * 1024
"""Unsent bytes above which a connection is congested; some 4,000 acks."""
WRITE_TIMEOUT = 20.0
"""Seconds in which Feishu takes no bytes from us, after which the connection counts as dead."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a connection ended."""

    reason: str
    code: int
    """The WebSocket close code; 1006 if it ended without a close frame."""


class Receiver(Protocol):
    """Takes what a connection brings: in a bridge, a `FeedReceiver`. Its methods must not block."""

    def on_delivery(self, delivery: Delivery) -> None:
        """A complete push."""

    def on_rejected(self, rejected: Rejected) -> None:
        """A frame that makes no delivery."""

    def on_pulse(self, pulse: Pulse) -> None:
        """A pong, or a heartbeat of the text dialect."""

    def on_text(self, kind: str, text: str) -> None:
        """A message of the text dialect that is no event."""


class Outgoing:
    """Collects what is to be sent, and sends all of one turn of the loop in one write.

    It does not wait for the other side; `congested` says when somebody should. Data for a
    connection that is not open any more is dropped.
    """

    def __init__(self, websocket: ClientConnection) -> None:
        self.congested = False
        self._protocol = websocket.protocol
        self._transport = websocket.transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes | str] = []

    def add(self, data: bytes | str) -> None:
        """Send this at the end of this turn of the loop."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def flush(self) -> None:
        """Send everything now, at a quarter of the CPU that the library's `send` takes per ack."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._protocol.state is not State.OPEN or self._transport.is_closing():
            return
        for data in waiting:
            if isinstance(data, str):
                self._protocol.send_text(data.encode())
            else:
                self._protocol.send_binary(data)
        self._transport.write(b"".join(self._protocol.data_to_send()))
        self.congested = self._transport.get_write_buffer_size() > WRITE_LIMIT


class Connection:
    """An open connection, made by `connect`. It belongs to the loop of the task that runs it."""

    def __init__(self, websocket: ClientConnection, conversation: Conversation) -> None:
        self.conversation = conversation
        """Counts, config and heartbeat; its times are of the event loop's clock."""
        self._websocket = websocket
        self._transport = websocket.transport
        self._loop = asyncio.get_running_loop()
        self._outgoing = Outgoing(websocket)
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Whether something can be sent; False as soon as the connection begins to end."""
        is_closing = bool(self._reason) or self._transport.is_closing()
        return self._websocket.protocol.state is State.OPEN and not is_closing

    @property
    def ended(self) -> Closed:
        """How it ended as far as is known, for callers that do not wait for `run`."""
        return Closed(self._reason or "left by us", self._websocket.close_code or 1006)

    async def run(self, receiver: Receiver) -> Closed:
        """Read until the connection ends, and say why it did.

        An exception of the receiver ends it too, and is raised here.

        Raises:
            FeishuRefused: a server of the text dialect refuses our token.
        """
        self._on_timer()
        try:
            while True:
                self._receive(await self._websocket.recv(), receiver)
                if self._outgoing.congested:
                    await self._drain()
        except ConnectionClosed as error:
            closed = self._closed(error)
            log.debug("connection.closed", reason=closed.reason, code=closed.code)
            return closed
        finally:
            self._disarm()
            self.conversation.end(self._loop.time())

    def ack(self, delivery: Delivery, code: int, data: bytes | None = None) -> None:
        """Answer a delivery with 200 or 500. All acks of one turn of the loop leave together.

        Nothing is sent once the connection has ended (Feishu sends the event again), nor for a
        delivery that came as text, since the text dialect has no ack.
        """
        frame = self.conversation.ack(delivery, code, self._loop.time(), data)
        if frame is not None:
            self._outgoing.add(frame)

    async def send(self, data: str | bytes) -> None:
        """Send a text or binary message as it is; wait while Feishu takes nothing.

        Raises:
            NotConnected: the connection has ended.
            UnicodeEncodeError: the text holds half of a surrogate pair.
        """
        if isinstance(data, str):
            data.encode()  # in `Outgoing` it would cost others their acks
        if self.is_open:
            self._outgoing.add(data)
            self._outgoing.flush()
            with contextlib.suppress(OSError):
                await self._websocket.drain()
        if not self.is_open:
            raise NotConnected("The connection to Feishu has ended; send again on the next one.")

    def pause(self) -> None:
        """Stop reading for good. What was read already, some 256 KiB, is still delivered."""
        self._paused = True
        self.conversation.pause(self._loop.time())
        self._transport.pause_reading()

    async def close(self) -> None:
        """Send waiting acks and close, within a second. Nothing is delivered any more."""
        self._outgoing.flush()
        self._reason = self._reason or "closed by us"
        self._transport.resume_reading()  # for Feishu's part of the goodbye
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._websocket.close()
        finally:
            self._transport.abort()

    def abort(self, reason: str = "aborted by us") -> None:
        """Drop the TCP connection at once. Unsent acks are lost."""
        self._reason = self._reason or reason
        self._transport.abort()

    # Reading

    def _receive(self, data: str | bytes, receiver: Receiver) -> None:
        if self._reason:
            return
        now = self._loop.time()
        if isinstance(data, str):
            deliveries = self.conversation.receive_text(data, now)
        else:
            deliveries = self.conversation.receive_data(data, now)
        for delivery in deliveries:
            receiver.on_delivery(delivery)
        if not deliveries:
            self._receive_rest(receiver)

    def _receive_rest(self, receiver: Receiver) -> None:
        for rejected in self.conversation.take_rejected():
            receiver.on_rejected(rejected)
        for kind, text in self.conversation.take_heard():
            receiver.on_text(kind, text)
        if (pulse := self.conversation.take_pulse()) is not None:
            receiver.on_pulse(pulse)
        self._answer()
        # A pong or a piece may have brought a timer forward; whole events, nearly all, never do.
        self._arm()

    def _closed(self, error: ConnectionClosed) -> Closed:
        frame = error.rcvd or error.sent
        code = frame.code if frame else 1006
        if self._reason:
            return Closed(self._reason, code)
        if frame is None:
            cause = f": {error.__cause__}" if error.__cause__ else ""
            return Closed(f"lost without a goodbye{cause}", code)
        side = "Feishu" if error.rcvd else "us"
        return Closed(f"closed by {side} {code} {frame.reason}".rstrip(), code)

    # Writing

    def _answer(self) -> None:
        for text in self.conversation.take_answers():
            self._outgoing.add(text)

    async def _drain(self) -> None:
        """Read nothing until Feishu has taken what we wrote, so that acks cannot pile up."""
        self._transport.pause_reading()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._websocket.drain()
        except TimeoutError:
            self.abort(f"no byte taken within {WRITE_TIMEOUT:g} s")
        except OSError:
            pass  # the connection is lost, as `recv` will tell
        finally:
            self._outgoing.congested = False
            if not self._paused:
                self._transport.resume_reading()

    # Timers

    def _arm(self) -> None:
        when = self.conversation.next_timer()
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        # One turn later, so that data that came in while the loop was stalled counts first.
        self._timer = self._loop.call_at(when, self._loop.call_soon, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            return
        due = self.conversation.on_timer(self._loop.time())
        if isinstance(due, Dead):
            self.abort(due.reason)
            return
        self._answer()
        if due is not None:
            self._outgoing.add(due)
        self._arm()


@contextlib.asynccontextmanager
async def connect(
    endpoint: Endpoint,
    *,
    open_timeout: float = OPEN_TIMEOUT,
    pong_timeout: float = PONG_TIMEOUT,
    counts: Counter[str] | None = None,
    heartbeat: Heartbeat | None = None,
    text_dialect: TextDialect | None = None,
    receive_buffer_size: int = 0,
) -> AsyncIterator[Connection]:
    """Open the WebSocket of an endpoint, through the proxy of the environment if there is one.

    Args:
        open_timeout: seconds for everything up to the upgrade.
        pong_timeout: seconds from a ping to any frame.
        counts: frames by outcome; it outlives the connection.
        heartbeat: statistics; they outlive the connection.
        text_dialect: speak text as well, to servers other than Feishu; None: ignore text.
        receive_buffer_size: bytes of the kernel's receive buffer; below `SMALLEST_BUFFER` the
            system chooses.

    Raises:
        FeishuUnavailable: a passing fault; discover again and retry with backoff.
        FeishuCrowded: the connection limit; retry slowly.
        FeishuRefused: Feishu forbids the connection.
    """
    websocket = await open_websocket(
        endpoint.url,
        open_timeout=open_timeout,
        close_timeout=CLOSE_TIMEOUT,
        write_limit=WRITE_LIMIT,
    )
    if receive_buffer_size >= SMALLEST_BUFFER:
        raw = websocket.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has ended already, as `run` will tell
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_size)
    now = asyncio.get_running_loop().time()
    conversation = Conversation(
        endpoint.service_id, endpoint.config, now, pong_timeout=pong_timeout, counts=counts,
        heartbeat=heartbeat, text_dialect=text_dialect,
    )  # fmt: skip
    connection = Connection(websocket, conversation)
    log.debug("connection.opened", device_id=endpoint.device_id)
    try:
        yield connection
    finally:
        await connection.close()
