"""A quiet uvicorn inside a running event loop: for the ops port and the local Feishu.

It has no signal handlers, no access log and no opinion on what is served.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette

from bridge.acceptor import Acceptor
from bridge.errors import BridgeError

STOP_TIMEOUT = 1
"""Seconds that requests in work have when the server stops; uvicorn takes whole ones."""

MOST_HEADERS = 16_384
"""Bytes that the head of a request may have."""

_T = TypeVar("_T")


class PortTaken(BridgeError):
    """The address to serve on is in use, or not ours."""


async def listen(
    stack: AsyncExitStack,
    server: AbstractAsyncContextManager[_T],
    host: str,
    port: int,
    *,
    cure: str,
) -> _T:
    """Enter a server until the stack ends.

    Raises:
        PortTaken: it cannot have the address; the sentence ends with `cure`.
    """
    try:
        return await stack.enter_async_context(server)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortTaken(f"Cannot listen on {netloc(host, port)} ({reason}); {cure}.") from error


def netloc(host: str, port: int) -> str:
    """Host and port as they stand in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def serving(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` until the block ends; gives the port, of the system's choice for 0.

    Raises:
        OSError: the address is taken, or not ours.
    """
    async with _served(_Server(_config(app)), host, port) as bound:
        yield bound


@asynccontextmanager
async def serving_strangers(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """As `serving`, with bounds: see `acceptor`; each connection is good for one small request."""
    config = _config(
        app, headers=[("Connection", "close")], h11_max_incomplete_event_size=MOST_HEADERS
    )
    async with _served(_BoundedServer(config), host, port) as bound:
        yield bound


@asynccontextmanager
async def _served(server: _Server, host: str, port: int) -> AsyncIterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=128) as listener:
        task = asyncio.create_task(server.serve([listener]), name="web")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait({task}, timeout=STOP_TIMEOUT + 0.5)
            task.cancel()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process: a server that took SIGTERM would swallow the drain."""
        yield


class _BoundedServer(_Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        (listener,) = sockets or []
        listener.setblocking(False)
        self._accepting = asyncio.create_task(
            Acceptor(listener, self._protocol).run(), name="web-acceptor"
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _config(app: Starlette, **bounds: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=STOP_TIMEOUT,
        **bounds,
    )
