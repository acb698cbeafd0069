"""One WebSocket to Feishu, from the upgrade to its end. What frames mean is `bridge/protocol.py`'s.

It never reconnects: the URL of an endpoint is good once, and who may connect is the lease's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from bridge import frames
from bridge.endpoint import Endpoint, refusal
from bridge.errors import FeishuRefused, FeishuUnavailable
from bridge.heartbeat import Heartbeat
from bridge.liveness import PONG_TIMEOUT, Dead
from bridge.protocol import Delivery, Protocol, Rejected
from bridge.settings import is_loopback
from bridge.text_dialect import TextDialect

OPEN_TIMEOUT = 10.0
"""Seconds for DNS, TCP, proxy, TLS and upgrade together."""
CLOSE_TIMEOUT = 1.0
WRITE_TIMEOUT = 20.0
"""Seconds that Feishu may take no bytes from us before the connection counts as dead."""
WRITE_LIMIT = 1024 * 1024
"""Unsent bytes above which reading waits; some 4,000 acks."""

log = structlog.get_logger("bridge.connection")

# At debug level the library logs the upgrade request, and the URL in it is a secret.
_library_log = logging.getLogger("bridge.connection.websockets")
_library_log.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a connection ended."""

    reason: str
    code: int
    """Of WebSocket; 1006 if it ended without a close frame."""


class Connection:
    """An open connection, made by `connect`. One task runs it; it belongs to that task's loop."""

    def __init__(
        self,
        websocket: ClientConnection,
        protocol: Protocol,
        on_delivery: Callable[[Delivery], None],
        on_rejected: Callable[[Rejected], None],
    ) -> None:
        self.protocol = protocol
        """Counts, config and heartbeat; its times are of the event loop's clock."""
        self._websocket = websocket
        self._transport = websocket.transport
        self._on_delivery = on_delivery
        self._on_rejected = on_rejected
        self._loop = asyncio.get_running_loop()
        self._outgoing: list[bytes | str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._congested = False
        self._reason = ""

    async def run(self) -> Closed:
        """Read until the connection ends, whoever ends it, and say why.

        What a callback raises ends it too, and comes out here.

        Raises:
            FeishuRefused: a server of the text dialect does not let us in.
        """
        self._on_timer()
        try:
            while True:
                self._receive(await self._websocket.recv())
                if self._congested:
                    await self._drain()
        except ConnectionClosed as error:
            closed = self._closed(error)
            log.debug("connection.closed", reason=closed.reason, code=closed.code)
            return closed
        finally:
            self._disarm()
            self.protocol.end(self._loop.time())

    def ack(self, delivery: Delivery, code: int, data: bytes | None = None) -> None:
        """Answer a delivery with 200 or 500; all acks of one turn of the loop leave together.

        Once the connection has ended this does nothing: Feishu sends the event again. It does
        nothing either for a delivery that came as text: that dialect has no ack.
        """
        frame = self.protocol.ack(delivery, code, self._loop.time(), data)
        if frame is not None:
            self._send(frame)

    def pause(self) -> None:
        """Stop reading; what has been read already, some 256 KiB, is still delivered."""
        self._paused = True
        self.protocol.pause(self._loop.time())
        self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self.protocol.resume(self._loop.time())
        self._transport.resume_reading()
        self._arm()

    async def close(self) -> None:
        """Send waiting acks, say goodbye, close, within a second. Nothing is delivered any more."""
        self._flush()
        self._reason = self._reason or "closed by us"
        self._transport.resume_reading()  # for Feishu's part of the goodbye
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._websocket.close()
        finally:
            self._transport.abort()

    def abort(self, reason: str = "aborted by us") -> None:
        """Drop the TCP connection at once, without a goodbye; unsent acks are lost."""
        self._reason = self._reason or reason
        self._transport.abort()

    # Reading

    def _receive(self, data: str | bytes) -> None:
        if self._reason:
            return
        now = self._loop.time()
        if isinstance(data, str):
            deliveries = self.protocol.receive_text(data, now)
        else:
            deliveries = self.protocol.receive_data(data, now)
        for delivery in deliveries:
            self._on_delivery(delivery)
        if not deliveries:
            self._receive_rest()

    def _receive_rest(self) -> None:
        for rejected in self.protocol.take_rejected():
            self._on_rejected(rejected)
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

    def _send(self, data: bytes | str) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _answer(self) -> None:
        for text in self.protocol.take_answers():
            self._send(text)

    def _flush(self) -> None:
        """Everything waiting in one write: a quarter of what the library's `send` costs per ack."""
        outgoing, self._outgoing = self._outgoing, []
        websocket = self._websocket.protocol
        if not outgoing or websocket.state is not State.OPEN or self._transport.is_closing():
            return
        for data in outgoing:
            if isinstance(data, str):
                websocket.send_text(data.encode())
            else:
                websocket.send_binary(data)
        self._transport.write(b"".join(websocket.data_to_send()))
        self._congested = self._transport.get_write_buffer_size() > WRITE_LIMIT

    async def _drain(self) -> None:
        """Read nothing until Feishu has taken what we wrote, so that acks cannot pile up."""
        self._transport.pause_reading()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._websocket.drain()
        except TimeoutError:
            self.abort(f"no byte taken within {WRITE_TIMEOUT:g} s")
        except OSError:
            pass  # lost meanwhile, which `recv` tells next
        finally:
            self._congested = False
            if not self._paused:
                self._transport.resume_reading()

    # Timers

    def _arm(self) -> None:
        when = self.protocol.next_timer()
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        # A turn later: what came in during a stall of the loop must count before silence does.
        self._timer = self._loop.call_at(when, self._loop.call_soon, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            return
        due = self.protocol.on_timer(self._loop.time())
        if isinstance(due, Dead):
            self.abort(due.reason)
            return
        self._answer()
        if due is not None:
            self._send(due)
        self._arm()


def _ignore(rejected: Rejected) -> None:
    """Rejected frames are counted, which is enough for some callers."""


@contextlib.asynccontextmanager
async def connect(
    endpoint: Endpoint,
    on_delivery: Callable[[Delivery], None],
    *,
    on_rejected: Callable[[Rejected], None] = _ignore,
    open_timeout: float = OPEN_TIMEOUT,
    pong_timeout: float = PONG_TIMEOUT,
    counts: Counter[str] | None = None,
    heartbeat: Heartbeat | None = None,
    text_dialect: TextDialect | None = None,
) -> AsyncIterator[Connection]:
    """Open the endpoint's WebSocket, through the proxy of the environment if there is one.

    Args:
        on_delivery: called for each complete push; neither it nor `on_rejected` may block.
        open_timeout: seconds for everything up to the upgrade.
        pong_timeout: seconds from a ping to any frame.
        counts: the counter to go on with, so that it outlives the connection.
        heartbeat: the statistics to go on with, likewise.
        text_dialect: speak text as well, to servers other than Feishu; None: ignore it.

    Raises:
        FeishuUnavailable: a passing fault; discover again and retry with backoff.
        FeishuBusy: the connection limit; retry slowly.
        FeishuRefused: Feishu forbids the connection.
    """
    websocket = await _open(endpoint.url, open_timeout)
    now = asyncio.get_running_loop().time()
    protocol = Protocol(
        endpoint.service_id, endpoint.config, now, pong_timeout=pong_timeout, counts=counts,
        heartbeat=heartbeat, text_dialect=text_dialect,
    )  # fmt: skip
    connection = Connection(websocket, protocol, on_delivery, on_rejected)
    log.debug("connection.opened", device_id=endpoint.device_id)
    try:
        yield connection
    finally:
        await connection.close()


async def _open(url: str, open_timeout: float) -> ClientConnection:
    try:
        return await open_websocket(
            url,
            proxy=None if is_loopback(urlsplit(url)) else True,
            compression=None,
            user_agent_header="flybridge",
            open_timeout=open_timeout,
            ping_interval=None,  # our own pings prove more: that Feishu's service answers
            close_timeout=CLOSE_TIMEOUT,
            max_size=frames.MAX_FRAME,
            max_queue=None,  # the transport is paused instead, see `pause`
            write_limit=WRITE_LIMIT,
            logger=_library_log,
        )
    except InvalidStatus as error:
        raise upgrade_refusal(error.response.status_code, error.response.headers) from None
    except OSError as error:
        reason = str(error) or "timed out"
    except (WebSocketException, ImportError) as error:
        # The text of these may hold the URL or a proxy's password.
        reason = type(error).__name__
    raise FeishuUnavailable(f"no WebSocket ({reason}); check network, DNS, proxy and TLS")


def upgrade_refusal(status: int, headers: Mapping[str, str]) -> FeishuRefused:
    """The error for an upgrade that Feishu answered with an HTTP `status`.

    Feishu: `Handshake-Status` 514 is failed authentication, of which `Handshake-Autherrcode`
    1000040350 is the connection limit and the rest a stale ticket; 403 is final.
    """
    handshake = _number(headers, "Handshake-Status")
    code = _number(headers, "Handshake-Autherrcode")
    said = ascii(headers.get("Handshake-Msg", ""))[:200]
    if handshake == 514 and code == 1000040350:
        return refusal(code, said)
    if handshake == 403:
        return FeishuRefused(
            f"Feishu forbids the connection {said}; check in the developer console that the app is "
            "enabled and its subscription mode is the long connection",
            403,
        )
    known = handshake or status
    return FeishuUnavailable(f"the upgrade was refused with {known} {said}; retry", code or known)


def _number(headers: Mapping[str, str], name: str) -> int:
    try:
        return int(headers.get(name, ""))
    except (ValueError, LookupError):  # LookupError: the header came twice
        return 0
