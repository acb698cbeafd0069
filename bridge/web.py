"""A quiet uvicorn inside a running event loop: for the ops port and the local Feishu.

It has no signal handlers, no access log and no opinion on what is served.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from bridge.acceptor import Acceptor
from bridge.errors import BridgeError

STOP_TIMEOUT = 1
"""Seconds that requests in work have when the server stops; uvicorn takes whole ones."""

MOST_HEADERS = 16_384
"""Bytes that the head of a request may have."""

_QUIET = logging.getLogger("bridge.web.uvicorn")
_QUIET.setLevel(logging.ERROR)  # what strangers send is no news, what we do wrong is

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
    host = bare(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bare(host: str) -> str:
    """An address to bind, perhaps written as in a URL."""
    return host.removeprefix("[").removesuffix("]")


@asynccontextmanager
async def serving(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` until the block ends; gives the port, of the system's choice for 0.

    Raises:
        OSError: the address is taken, or not ours.
    """
    with _listening(host, port) as listener:
        server = _Server(_config(app))
        task = asyncio.create_task(server.serve([listener]), name="web")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait({task}, timeout=STOP_TIMEOUT + 0.5)
            task.cancel()


@asynccontextmanager
async def serving_strangers(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """As `serving`, with bounds: see `acceptor`; each connection is good for one small request.

    It leaves uvicorn's loggers alone: a program that embeds a bridge may be served by uvicorn.

    Raises:
        OSError: the address is taken, or not ours.
    """
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", ws="none", h11_max_incomplete_event_size=MOST_HEADERS
    )
    config.load()
    state = ServerState()
    state.default_headers = [(b"connection", b"close")]

    def protocol() -> asyncio.Protocol:
        made = H11Protocol(config=config, server_state=state, app_state={})
        made.logger, made.access_log = _QUIET, False
        return made

    with _listening(host, port) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(Acceptor(listener, protocol).run(), name="web-acceptor")
        try:
            yield listener.getsockname()[1]
        finally:
            accepting.cancel()
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=STOP_TIMEOUT)
            for connection in list(state.connections):
                connection.transport.abort()
            for task in state.tasks:
                task.cancel()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((bare(host), port), family=family, backlog=128)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process: a server that took SIGTERM would swallow the drain."""
        yield


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=STOP_TIMEOUT,
    )
