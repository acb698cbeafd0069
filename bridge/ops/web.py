"""A quiet uvicorn inside a running event loop, for the ops port and the local Feishu.

It has no signal handlers and no access log. Strangers' connections are bounded in number and time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from flybridge.bridge.errors import BridgeError
from flybridge.handlers.loggers import get_logger

MAX_CONNECTIONS = 32
"""Open connections. A further one closes the oldest one of the address that has the most."""

CONNECTION_LIFETIME = 10.0
"""Seconds that a connection may last, from its first byte to the last of the answer."""

ACCEPT_PAUSE = 0.002
"""Seconds between two connections, so that a flood of requests leaves time for everything else."""

FAILURE_PAUSE = 1.0
"""Seconds until the next attempt to accept, e.g. when there are no file descriptors."""

LOG_PERIOD = 60.0
"""Seconds between two log lines of one kind."""

STOP_TIMEOUT = 1
"""Whole seconds that running requests have when the server stops."""

MOST_HEADERS = 16_384
"""Bytes of the head of a request at most."""

_QUIET = logging.getLogger("flybridge.bridge.ops.web.uvicorn")
_QUIET.setLevel(logging.ERROR)  # bad requests are no news, our own errors are

_T = TypeVar("_T")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Guest:
    """One open connection."""

    address: str
    since: float
    transport: asyncio.Transport


class Acceptor:
    """Accepts the connections of a listening socket one by one, and bounds them.

    Args:
        listener: non-blocking; its maker closes it.
        protocol: makes the protocol of one connection.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        most: int = MAX_CONNECTIONS,
        lifetime: float = CONNECTION_LIFETIME,
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
        """Accept until cancelled. Open connections are left alone then."""
        seeing_off = asyncio.create_task(self._see_off(), name="web-lifetimes")
        try:
            while True:
                pause = ACCEPT_PAUSE if await self._accept() else FAILURE_PAUSE
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
        if now - self._told.get(event, -LOG_PERIOD) >= LOG_PERIOD:
            self._told[event] = now
            log.warning(event, **fields, cure="see who asks the ops port; events go on")


class PortTaken(BridgeError):
    """The address to listen on is in use, or not ours."""


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
    """An address to bind, without the brackets of a URL."""
    return host.removeprefix("[").removesuffix("]")


@asynccontextmanager
async def serving(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` until the block ends; yields the port, which the system chooses for 0.

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
    """`serving` with bounded connections (see `Acceptor`), each good for one small request.

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
        """Leave signals to the process: a server that took SIGTERM would swallow the drain."""
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
