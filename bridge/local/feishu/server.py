"""A local Feishu server that speaks the real protocol: discovery by HTTP, frames by WebSocket.

It encrypts nothing. On demand it speaks the text dialect instead of frames.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from flybridge.bridge.local.feishu import text, wire
from flybridge.bridge.local.feishu.connection import LocalConnection
from flybridge.bridge.local.feishu.faults import Faults, Refusal
from flybridge.bridge.local.feishu.gate import Gate, connection_id
from flybridge.bridge.local.feishu.ledger import Ladder, Ledger
from flybridge.bridge.local.feishu.pump import Pump
from flybridge.bridge.local.feishu.pushes import Push, push_of
from flybridge.bridge.local.feishu.routes import routes
from flybridge.bridge.ops.web import bare, netloc, serving
from flybridge.bridge.protocol.text_codec import Auth, Heartbeat, Ping

APP_ID = "cli_a1b2c3d4e5f60718"
APP_SECRET = "local-secret"  # noqa: S105 (the secret of an app that exists nowhere)
SERVICE_ID = 33_554_678

CLIENT_CONFIG: Mapping[str, int] = {
    "ReconnectCount": -1,
    "ReconnectInterval": 120,
    "ReconnectNonce": 30,
    "PingInterval": 120,
}
"""Seconds, as Feishu was seen to send them."""

_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (read, not bound)
"""Where a client on this machine finds what listens on all of its addresses."""

_QUIET = logging.getLogger("flybridge.bridge.local.websockets")
_QUIET.disabled = True  # cut connections are this server's purpose


class LocalFeishu:
    """`async with LocalFeishu() as feishu:` serves until the block ends.

    Args:
        app_id, app_secret: the one app it knows.
        host: address to bind; anyone who reaches it may push events and ask for faults.
        port: of HTTP, 0 for any; the WebSocket side has a port of its own.
        config: ClientConfig keys that differ from `CLIENT_CONFIG`.
        clock_scale: how many times faster than real the re-push ladder runs.
        ack_timeout: real seconds from push to ack, not scaled.
        push_on_connect: push again at once, on a new connection, what was never answered.
        fragment_size: bytes of one frame's payload.
        max_connections: Feishu: 50.
        window: events in flight at once; further ones wait their turn.
        text_dialect: speak it, as other gateways do, instead of frames.
        text_token: the token that text clients must send before they get events; empty: none.
    """

    def __init__(
        self,
        *,
        app_id: str = APP_ID,
        app_secret: str = APP_SECRET,
        host: str = "127.0.0.1",
        port: int = 0,
        config: Mapping[str, int] | None = None,
        clock_scale: float = 1.0,
        ack_timeout: float = 3.0,
        push_on_connect: bool = True,
        fragment_size: int = wire.FRAGMENT_SIZE,
        max_connections: int = 50,
        window: int = 1000,
        text_dialect: bool = False,
        text_token: str = "",
    ) -> None:
        self.app_id = app_id
        self.app_secret = app_secret
        self.config = {**CLIENT_CONFIG, **(config or {})}
        self.connections: dict[str, LocalConnection] = {}
        self.faults = Faults(lambda: list(self.connections.values()), self.config)
        self.ledger = Ledger(
            Ladder(clock_scale=clock_scale), ack_timeout=ack_timeout, window=window
        )
        self._gate = Gate(app_id, app_secret, SERVICE_ID, max_connections, self.config, self.faults)
        self._counts = {"discoveries": 0, "connections": 0, "pings": 0, "ignored": 0}
        self._text, self._text_token = text_dialect, text_token
        numbers = wire.Numbers(SERVICE_ID, itertools.count(1))
        self._host, self._port = bare(host), port
        self._ws_port = 0
        self._push_on_connect = push_on_connect
        self._pump = Pump(
            self.ledger, self.connections, self.faults, numbers, fragment_size,
            text_dialect=text_dialect,
        )  # fmt: skip
        self._servers = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start to serve.

        Raises:
            OSError: the address is taken.
        """
        async with AsyncExitStack() as servers:
            ws = await servers.enter_async_context(self._serve_websockets())
            self._ws_port = next(iter(ws.sockets)).getsockname()[1]
            http = serving(routes(self), self._host, self._port)
            self._port = await servers.enter_async_context(http)
            self._servers = servers.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pump.close()
        for connection in list(self.connections.values()):
            if connection.frozen:
                connection.cut()
        await self._servers.aclose()

    @property
    def url(self) -> str:
        """The base URL to give to clients as their domain."""
        return f"http://{netloc(_LOOPBACKS.get(self._host, self._host), self._port)}"

    @property
    def stats(self) -> dict[str, int]:
        """Counters since the start; the names are those of `ledger.Stats` and of `_counts`."""
        return {**asdict(self.ledger.stats), **self._counts}

    def push(self, envelope: Mapping[str, Any] | bytes, *, kind: str = "event") -> Push:
        """Owe an event to the app and push it soon. A known event id is delivered once more.

        Args:
            envelope: bytes are sent as they are, readable or not.
            kind: the frame header `type`; `card` for the legacy channel.
        """
        push = self.ledger.owe(push_of(envelope, kind=kind), time.monotonic())
        self._pump.wake()
        return push

    def change_secret(self, secret: str) -> None:
        """Change the secret, as in the console: connections stay, the next discovery needs it."""
        self.app_secret = self._gate.app_secret = secret

    def discover(self, body: bytes, host: str) -> tuple[int, dict[str, Any]]:
        """HTTP status and JSON of discovery; `host` is the name by which the client came."""
        self._counts["discoveries"] += 1
        origin = f"ws://{netloc(host, self._ws_port)}"
        return self._gate.discover(body, origin, len(self.connections))

    def _serve_websockets(self) -> AbstractAsyncContextManager[Server]:
        return serve(
            self._converse,
            self._host,
            0,
            process_request=self._admit,
            compression=None,
            ping_interval=None,
            close_timeout=1,
            max_size=None,
            max_queue=None,
            logger=_QUIET,
        )

    def _admit(self, ws: ServerConnection, request: Request) -> Response | None:
        refusal = self._gate.admit(request.path, len(self.connections))
        return _handshake_failed(refusal) if refusal else None

    async def _converse(self, ws: ServerConnection) -> None:
        assert ws.request  # noqa: S101 (the handshake is done)
        connection = LocalConnection(connection_id(ws.request.path), ws)
        if not self._text_token:
            self._welcome(connection)
        try:
            async for data in ws:
                self._receive(connection, data)
        except ConnectionClosed:
            pass  # either side has ended it
        finally:
            self.connections.pop(connection.id, None)
            self.ledger.lose(connection.id, time.monotonic())
            self._pump.wake()

    def _welcome(self, connection: LocalConnection) -> None:
        self.connections[connection.id] = connection
        self._counts["connections"] += 1
        if self._push_on_connect:
            self.ledger.hurry(time.monotonic())
        self._pump.wake()

    def _receive(self, connection: LocalConnection, data: str | bytes) -> None:
        if self._text:
            self._receive_text(connection, data)
            return
        heard = wire.read(data) if isinstance(data, bytes) else None
        if isinstance(heard, wire.Ack):
            self._receive_ack(connection, heard)
        elif heard is None:
            self._counts["ignored"] += 1
        else:
            self._receive_ping(connection)

    def _receive_text(self, connection: LocalConnection, data: str | bytes) -> None:
        message = text.read(data) if isinstance(data, str) else None
        if isinstance(message, Ping):
            self._receive_ping(connection)
        elif isinstance(message, Auth):
            self._receive_auth(connection, message)
        elif not isinstance(message, Heartbeat):
            self._counts["ignored"] += 1

    def _receive_auth(self, connection: LocalConnection, auth: Auth) -> None:
        welcome = self._text_token in ("", auth.token)
        connection.send([text.auth_reply(welcome=welcome)])
        if welcome and connection.id not in self.connections:
            self._welcome(connection)

    def _receive_ping(self, connection: LocalConnection) -> None:
        self._counts["pings"] += 1
        if not self.faults.take("drop_pongs"):
            pong = text.pong() if self._text else wire.pong(SERVICE_ID, self.config)
            connection.send([pong])

    def _receive_ack(self, connection: LocalConnection, ack: wire.Ack) -> None:
        if self.faults.take("drop_acks"):
            return
        attempt = self.ledger.answered(ack.message_id, connection.id, ack.code, time.monotonic())
        if attempt:
            attempt.ack, attempt.biz_rt = ack.payload, ack.biz_rt
            self._pump.wake()


def _handshake_failed(refusal: Refusal) -> Response:
    """Feishu: a failed upgrade tells its reason by `Handshake-*` headers."""
    headers = Headers(Connection="close")
    headers["Content-Length"] = "0"
    headers["Handshake-Status"] = str(refusal.status)
    headers["Handshake-Msg"] = refusal.msg
    if refusal.code is not None:
        headers["Handshake-Autherrcode"] = str(refusal.code)
    return Response(refusal.status, "Handshake Failed", headers)
