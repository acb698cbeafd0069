"""Keeps a leader connected to Feishu: discovery, connection, and what follows from each failure.

Whether this process may connect at all is the supervisor's question, not answered here.

Feishu: a close is routine (every half hour or so), hence a quiet reconnect with a new discovery.
What a refusal means:

* `FeishuUnavailable`: passing; backoff. After `patience` without a connection `hold` gives up,
  since another host's network may be better.
* `FeishuBusy`: heals elsewhere; slow retry. Another host would be refused as well, so the lease is
  kept.
* `FeishuRefused`: wrong configuration. It ends the process as long as no discovery has ever
  succeeded, because then somebody is waiting for it to start; later it is retried very slowly,
  until the console is put right.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

import structlog

from bridge.backoff import Backoff
from bridge.connection import Connection
from bridge.endpoint import REFUSALS, Endpoint
from bridge.errors import FeishuBusy, FeishuRefused, FeishuUnavailable
from bridge.feed import Feed
from bridge.protocol import ClientConfig
from bridge.publisher import Publisher
from bridge.tally import Tally

GOODBYE = 0.3
"""Seconds that Feishu may take for its part of a goodbye when the process stops."""

log = structlog.get_logger("bridge.link")

Discover = Callable[..., Awaitable[Endpoint]]
Connect = Callable[..., AbstractAsyncContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long what may take; seconds."""

    patience: float = 60.0
    """A leader without a connection for so long lets another host try."""
    busy_retry: float = 30.0
    refused_retry: float = 300.0
    steady: float = 10.0
    """A connection that lived so long was a success: the backoff starts anew."""


class Link:
    """The way to Feishu of one process, over many connections and leaderships.

    Args:
        discover: `endpoint.discover` with base URL and credentials filled in; called with `config`,
            `refusals`.
        connect: `connection.connect`; called with endpoint, `on_delivery`, `on_rejected`, `counts`.
        feed: makes the feed for a term.
        on_change: called when a connection comes or goes.
    """

    def __init__(
        self,
        discover: Discover,
        connect: Connect,
        feed: Callable[[int], Feed],
        publisher: Publisher,
        tally: Tally,
        pace: Pace,
        *,
        on_change: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection: Connection | None = None
        self.connected_at: float | None = None
        """By `clock`; None: not connected."""
        self.trouble = ""
        """Why there is no connection; empty when there is one, or was until just now."""
        self.degraded = False
        """Refused for a reason that heals elsewhere, if at all."""
        self.on_change = on_change
        self._discover, self._connect, self._feed = discover, connect, feed
        self._publisher = publisher
        self._tally = tally
        self._pace = pace
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._config: ClientConfig | None = None
        self._refusals = 0
        self._offline_since: float | None = None
        self._ponged = False

    @property
    def pong_at(self) -> float | None:
        """The last pong of this connection, by the loop's clock."""
        return self.connection.protocol.last_pong if self.connection is not None else None

    @property
    def pong_seen(self) -> bool:
        """Whether any pong came since `hold` began."""
        return self._ponged or self.pong_at is not None

    @property
    def offline(self) -> float:
        """Seconds since a connection was wanted and there was none."""
        return self._clock() - self._offline_since if self._offline_since is not None else 0.0

    async def hold(self, term: int) -> None:
        """Stay connected and publish under this term; returns when `patience` is over.

        Raises:
            FeishuRefused: wrong configuration, and no discovery had ever succeeded.
        """
        self._offline_since, self._ponged = self._clock(), False
        try:
            while True:
                delay = await self._attempt(term)
                if self.trouble and not self.degraded and self.offline > self._pace.patience:
                    return
                await asyncio.sleep(delay)
        finally:
            self._offline_since, self.trouble, self.degraded = None, "", False

    def abort(self) -> None:
        """Drop the socket at once: what comes in by it belongs to another leader."""
        if self.connection is not None:
            self.connection.abort()
            log.info("feishu.aborted")

    async def drain(self, timeout: float) -> None:
        """Stop reading, have what was read published and acked, close."""
        connection = self.connection
        if connection is None:
            return
        connection.pause()
        left = await self._publisher.drain(timeout)
        if left:
            log.warning("feed.undrained", waiting=left)  # not acked, so Feishu sends them again
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await connection.close()

    async def _attempt(self, term: int) -> float:
        """One connection, from discovery to its end; returns the seconds until the next attempt."""
        try:
            await self._session(term)
        except FeishuUnavailable as error:
            return self._failed(error, self._backoff.next(), degraded=False)
        except FeishuBusy as error:
            return self._failed(error, self._pace.busy_retry, degraded=True)
        except FeishuRefused as error:
            if self._config is None:
                raise
            return self._failed(error, self._pace.refused_retry, degraded=True)
        except Exception as error:  # a mistake of ours must not end the only bridge
            log.exception("feishu.connection_failed")
            return self._failed(error, self._backoff.next(), degraded=False)
        return self._backoff.next()

    async def _session(self, term: int) -> None:
        endpoint = await self._discover(config=self._config, refusals=self._refusals)
        self._config = endpoint.config
        feed = self._feed(term)
        opening = self._connect(
            endpoint,
            feed.take,
            on_rejected=feed.reject,
            counts=self._tally.frames,
            heartbeat=self._tally.heartbeat,
        )
        async with opening as connection:
            feed.connection = connection
            self._connected(connection, endpoint)
            try:
                closed = await connection.run()
            finally:
                self._disconnected(connection)
        log.info("feishu.closed", reason=closed.reason, code=closed.code)

    def _connected(self, connection: Connection, endpoint: Endpoint) -> None:
        self.connection, self.connected_at = connection, self._clock()
        self.trouble, self.degraded = "", False
        self._offline_since, self._refusals = None, 0
        self._tally.connects += 1
        log.info("feishu.connected", device_id=endpoint.device_id)
        self.on_change()

    def _disconnected(self, connection: Connection) -> None:
        now = self._clock()
        lived = now - (self.connected_at or now)
        self._ponged = self.pong_seen
        if lived >= self._pace.steady:
            self._backoff.reset()
        self._config = connection.protocol.config
        self._backoff.limit(self._config.reconnect_interval)
        self.connection = self.connected_at = None
        self._offline_since = now
        self.on_change()

    def _failed(self, error: Exception, delay: float, *, degraded: bool) -> float:
        refused = isinstance(error, FeishuRefused) and error.code in REFUSALS
        self._refusals = self._refusals + 1 if refused else 0
        self.degraded = degraded
        if str(error) != self.trouble:  # once per change: a degraded bridge retries for days
            self.trouble = str(error) or repr(error)
            if degraded:
                log.error("feishu.refused", reason=self.trouble, retry_in=round(delay))
            else:
                log.warning("feishu.unavailable", reason=self.trouble)
            self.on_change()
        return delay
