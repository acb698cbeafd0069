"""Keeps a leader connected to Feishu: discovery, connection, and what follows from each failure.

Feishu: a close is routine (every half hour or so), hence a quiet reconnect with a new discovery.
What an error means:

* `FeishuUnavailable`: passing; backoff. After `patience` without a connection `hold` gives up,
  since another host's network may be better.
* `FeishuCrowded`: slow retry. Another host would be refused as well, so the lease is kept.
* `FeishuBusy`, `FeishuRefused`: `hold` gives up at once, since another bridge may be accepted, and
  `Credentials` asks until this one is. A `FeishuRefused` ends the process as long as Feishu has
  never let it in, because then somebody is waiting for it to start.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass

from flybridge.bridge.errors import (
    ConnectionOver,
    FeishuCrowded,
    FeishuError,
    FeishuRefused,
    FeishuUnavailable,
)
from flybridge.bridge.feishu.backoff import Attempts, Backoff, Pace
from flybridge.bridge.feishu.connection import Closed, Connection
from flybridge.bridge.feishu.discovery import Endpoint
from flybridge.bridge.lifecycle import Connected, Disconnected, HeartbeatReceived, MessageReceived
from flybridge.bridge.node.credentials import Credentials
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.ops.status import Board, now_ms
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.heartbeat import Pulse
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.bridge.publishing.counters import Counters
from flybridge.bridge.publishing.feed import Acker, Feed
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.handlers.loggers import get_logger

GOODBYE = 0.3
"""Seconds that Feishu may take to close when the process stops."""

LAST_PUBLISHES = 1.0
"""Seconds to publish what was read from the last connection."""

log = get_logger(__name__)

Connect = Callable[..., AbstractAsyncContextManager[Connection]]
"""`connection.connect`; called with endpoint, `counts` and `heartbeat`."""

MakeFeed = Callable[[Acker, int], Feed]
"""Makes the feed of a connection under a term."""


@dataclass(frozen=True, slots=True)
class FeedReceiver:
    """The receiver of a bridge's connections: gives pushes to the feed, and tells subscribers."""

    feed: Feed
    lifecycle: Subscribers

    def on_delivery(self, delivery: Delivery) -> None:
        self.feed.take(delivery)
        if self.lifecycle.wants(MessageReceived):
            self._tell(delivery.kind, delivery.payload, delivery.message_id)

    def on_rejected(self, rejected: Rejected) -> None:
        self.feed.reject(rejected)

    def on_text(self, kind: str, text: str) -> None:
        if self.lifecycle.wants(MessageReceived):
            self._tell(kind, text.encode(errors="replace"), "")

    def on_pulse(self, pulse: Pulse) -> None:
        if self.lifecycle.wants(HeartbeatReceived):
            told = (pulse.interval, pulse.status, pulse.round_trip, pulse.sent_at, pulse.message)
            self.lifecycle.tell(HeartbeatReceived(now_ms(), *told))

    def _tell(self, kind: str, payload: bytes, message_id: str) -> None:
        self.lifecycle.tell(MessageReceived(kind, payload, message_id, now_ms()))


class Reconnector:
    """Keeps a connection to Feishu, over many connections and leaderships.

    Args:
        credentials: makes the discoveries, and is told of refusals.
        board: written when a connection comes or goes.
        attempts: decides whether to connect again.
        lifecycle: told of connections, deliveries, heartbeats and failed attempts.
    """

    def __init__(
        self,
        credentials: Credentials,
        connect: Connect,
        feed: MakeFeed,
        publisher: Publisher,
        counters: Counters,
        pace: Pace,
        backoff: Backoff,
        attempts: Attempts,
        board: Board,
        lifecycle: Subscribers,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection: Connection | None = None
        self.connected_at: float | None = None
        """By `clock`; None: not connected."""
        self.endpoint: Endpoint | None = None
        """Of the connection; None: not connected."""
        self.trouble = ""
        """Why there is no connection; empty when there is one, or was until just now."""
        self.degraded = False
        """Refused for a reason that only somebody else can mend."""
        self._credentials, self._connect, self._feed = credentials, connect, feed
        self._publisher, self._counters = publisher, counters
        self._pace, self._backoff, self._attempts = pace, backoff, attempts
        self._board, self._lifecycle = board, lifecycle
        self._clock = clock
        self._hurry = asyncio.Event()
        self._ends_by_us = self._brief = False
        self._config: ClientConfig | None = None
        self._let_in = False
        self._offline_since: float | None = None
        self._ponged = False

    @property
    def pong_at(self) -> float | None:
        """The last pong of this connection, by the loop's clock."""
        connection = self.connection
        return connection.conversation.last_pong if connection is not None else None

    @property
    def pong_seen(self) -> bool:
        """Whether any pong came since `hold` began."""
        return self._ponged or self.pong_at is not None

    @property
    def offline(self) -> float:
        """Seconds for which a connection has been wanted and missing."""
        since = self._offline_since
        return self._clock() - since if since is not None else 0.0

    async def hold(self, term: int) -> None:
        """Stay connected and publish under this term.

        Returns when `patience` is over, or when Feishu refuses this bridge.

        Raises:
            FeishuRefused: wrong configuration, and Feishu had never let this bridge in.
            ConnectionOver: the settings allow no further attempt.
        """
        self._offline_since, self._ponged = self._clock(), False
        try:
            while (delay := await self._attempt(term)) is not None:
                await self._pause(min(delay, self._left))
                if self._left <= 0:
                    return
        except ConnectionOver:
            # The acks are lost with the connection; what Feishu sends again is a duplicate then.
            await self._publisher.drain(LAST_PUBLISHES)
            raise
        finally:
            self._offline_since, self.trouble, self.degraded = None, "", False

    def abort(self) -> None:
        """Drop the socket at once: what it brings belongs to another leader."""
        if self.connection is not None:
            self._ends_by_us = True
            self.connection.abort()
            log.info("feishu.aborted")

    async def drain(self, timeout: float) -> None:
        """Stop reading, publish and ack what was read, and close."""
        connection = self.connection
        if connection is None:
            return
        self._ends_by_us = True
        connection.pause()
        left = await self._publisher.drain(timeout)
        if left:
            log.warning("feed.undrained", waiting=left)  # not acked, so Feishu sends them again
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await connection.close()

    async def reconnect(self, timeout: float) -> None:
        """Drain the connection, if there is one, and let `hold` make the next attempt at once."""
        self._hurry.set()
        await self.drain(timeout)

    @property
    def _left(self) -> float:
        """Seconds of patience that are left."""
        return math.inf if self.degraded else self._pace.patience - self.offline

    @asynccontextmanager
    async def _patiently(self) -> AsyncIterator[None]:
        """Leave the block when patience is over."""
        left = self._left
        try:
            async with asyncio.timeout(None if math.isinf(left) else left):
                yield
        except TimeoutError:
            raise FeishuUnavailable(
                f"no connection within {self._pace.patience:g} s; check network, DNS and proxy"
            ) from None

    async def _pause(self, delay: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()
        self._hurry.clear()

    async def _attempt(self, term: int) -> float | None:
        """Make one connection, from discovery to its end.

        Returns the seconds until the next attempt, None when another bridge is to try.
        """
        endpoint: Endpoint | None = None
        try:
            async with self._patiently():
                endpoint = await self._credentials.discover(self._config)
            closed = await self._session(term, endpoint)
        except FeishuUnavailable as error:
            return self._failed(error, self._backoff.next(), degraded=False)
        except FeishuCrowded as error:
            return self._failed(error, self._pace.busy_retry, degraded=True)
        except FeishuError as error:
            known = self._let_in if endpoint else self._credentials.were_accepted
            if isinstance(error, FeishuRefused) and not known:
                raise
            self._failed(error, self._credentials.refuse(error), degraded=True)
            return None
        except Exception as error:  # a mistake of ours must not end the only bridge
            log.exception("feishu.connection_failed")
            return self._failed(error, self._backoff.next(), degraded=False)
        if not self._ends_by_us:
            self._attempts.ended(closed.reason, brief=self._brief)
        return self._backoff.next()

    async def _session(self, term: int, endpoint: Endpoint) -> Closed:
        self._config = endpoint.config
        counts, heartbeat = self._counters.frames, self._counters.heartbeat
        opening = self._connect(endpoint, counts=counts, heartbeat=heartbeat)
        async with AsyncExitStack() as stack:
            async with self._patiently():
                connection = await stack.enter_async_context(opening)
            receiver = FeedReceiver(self._feed(connection, term), self._lifecycle)
            self._connected(connection, endpoint)
            closed = None
            try:
                closed = await connection.run(receiver)
            finally:
                self._disconnected(connection, closed or connection.ended)
        log.info("feishu.closed", reason=closed.reason, code=closed.code)
        return closed

    def _connected(self, connection: Connection, endpoint: Endpoint) -> None:
        self.connection, self.connected_at = connection, self._clock()
        self.endpoint = endpoint
        self.trouble, self.degraded = "", False
        self._offline_since = None
        self._counters.connects += 1
        self._hurry.clear()
        self._ends_by_us = False
        log.info("feishu.connected", device_id=endpoint.device_id)
        self._board.change()
        self._lifecycle.tell(Connected(endpoint.device_id, now_ms()))

    def _disconnected(self, connection: Connection, closed: Closed) -> None:
        now = self._clock()
        lived = now - (self.connected_at or now)
        self._ponged = self.pong_seen
        self._brief = lived < self._pace.steady
        if not self._brief:
            self._let_in = True
            self._backoff.reset()
            self._attempts.succeeded()
        self._config = connection.conversation.config
        self._backoff.limit(self._config.reconnect_interval)
        self.connection = self.connected_at = self.endpoint = None
        self._offline_since = now
        self._board.change()
        self._lifecycle.tell(Disconnected(closed.code, closed.reason, now_ms()))

    def _failed(self, error: Exception, delay: float, *, degraded: bool) -> float:
        self.degraded = degraded
        if str(error) != self.trouble:  # once per change: a degraded bridge retries for days
            self.trouble = str(error) or repr(error)
            if degraded:
                log.error("feishu.refused", reason=self.trouble, retry_in=round(delay))
            else:
                log.warning("feishu.unavailable", reason=self.trouble)
            self._board.change()
        self._attempts.fail(error)
        self._lifecycle.errored(error)
        return delay
