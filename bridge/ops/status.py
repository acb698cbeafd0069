"""The status of a bridge, and the board in Redis to which all bridges of an app write theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flybridge.bridge.process.cancellation import heed_cancellation
from flybridge.bridge.protocol.heartbeat import HeartbeatStatistics
from flybridge.bridge.store.redis_rights import UnusableKey
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

WRITE_PERIOD = 2.0
"""Seconds between two writes; a change is written at once."""

STALE_AFTER = 60.0
"""Seconds without a write after which another bridge's status is removed: it was killed."""

_WRITE_TIMEOUT = 0.5

log = get_logger(__name__)


class State(StrEnum):
    """The states of a bridge."""

    STANDBY = "standby"
    LEADING = "leading"
    DRAINING = "draining"
    STOPPED = "stopped"


class Standing(StrEnum):
    """What Feishu last said of a bridge's credentials."""

    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Status:
    """One bridge at one moment. Instants are Unix ms; ages and delays are seconds."""

    identity: str
    app_id: str
    pid: int
    state: State
    at: int
    """When it was so; on the board by Redis' clock."""
    started_at: int
    since: int
    """When it came into `state`."""
    term: int
    """0 unless leading."""
    leader: str
    """Identity of the leader, as far as this bridge knows; empty when there is none."""
    connected_for: float | None
    """None: no connection to Feishu."""
    pong_age: float | None
    """Since the last pong of this connection."""
    pong_seen: bool
    """Whether any pong came during this leadership."""
    offline: float
    """Seconds for which a leader has had no connection; 0 otherwise."""
    credentials: Standing
    unreached: float
    """Seconds for which Feishu could not be asked about the credentials; 0 if it answered."""
    trouble: str
    """Why a leader is not connected, or a standby could not connect; empty otherwise."""
    degraded: bool
    """Feishu refuses this bridge, or has too many connections of the app; retried slowly."""
    waiting: int
    """Entries on their way into Redis."""
    full: bool
    """Whether Redis has no room for more events: all are answered 500."""
    memory_used: int
    """Bytes, as Redis counts them against `memory_limit`; 0 until first measured by a leader."""
    memory_limit: int
    """Redis' maxmemory in bytes; 0 without one."""
    trimmed: int
    """Entries removed from streams."""
    lagging: int
    """Pairs of stream and group that hold entries past the retention."""
    durability: str
    """`none`, `aof` or `replica:N`: what an ack waits for."""
    redis_age: float | None
    """Since Redis last answered the lease call."""
    renew_seconds: float
    """How long that answer took."""
    lease_failures: int
    """Lease calls without an answer, ever."""
    loop_lag: float
    outcomes: dict[str, int]
    frames: dict[str, int]
    ack_bounds: list[float]
    """Upper bounds of all buckets but the last, which has none; seconds."""
    ack_counts: list[int]
    """Acks per bucket, not cumulated."""
    ack_seconds: float
    """Sum over all acks."""
    leaderships: int
    connects: int
    heartbeat: HeartbeatStatistics
    unread: int = 0
    """Streams with entries that no group reads."""
    groups_without_workers: int = 0
    """Groups with unread events and no worker at work."""
    publish_trouble: str = ""
    """Why a leader cannot publish, and what to do; empty when it can."""
    trim_trouble: str = ""
    """Why a leader cannot trim as it should, and what to do; empty when it can."""
    spans_lost: int = 0
    """Spans for which there was no room, or which the collector did not take."""

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)


class Board:
    """Writes this bridge's status into the hash `bridges`, under its identity. It never raises."""

    def __init__(self, redis: Redis, keys: Keys, *, period: float = WRITE_PERIOD) -> None:
        self._redis = redis
        self._key = keys.bridges
        self._spoilt = UnusableKey(keys.bridges, "no bridge's status can be shown")
        self._period = period
        self._changed = asyncio.Event()

    def change(self) -> None:
        """Write the status soon."""
        self._changed.set()

    async def run(self, status: Callable[[], Status]) -> None:
        """Write `status()` on every change and every `period` seconds, until cancelled."""
        while True:
            await self._attempt(self._write(status))
            heed_cancellation()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._changed.wait()
            self._changed.clear()

    async def remove(self, identity: str) -> None:
        """Take a bridge off the board, at its clean exit."""
        await self._attempt(self._redis.hdel(self._key, identity))

    async def _write(self, make: Callable[[], Status]) -> None:
        # By Redis' clock: those of the hosts may be hours apart.
        seconds, micros = await self._redis.time()
        now = seconds * 1000 + micros // 1000
        status = replace(make(), at=now)
        await self._redis.hset(self._key, status.identity, status.to_json())
        rows = await self._redis.hgetall(self._key)
        longest = STALE_AFTER * 1000
        stale = [name for name, row in rows.items() if abs(now - _written_at(row)) > longest]
        if stale:
            await self._redis.hdel(self._key, *stale)

    async def _attempt(self, call: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT):
                await call
            self._spoilt.succeeded()
        except (RedisError, OSError) as error:  # a board that is out of date does no harm
            self._spoilt.failed(error)
            log.debug("status.unwritten", error=repr(error))


def now_ms() -> int:
    """Unix ms."""
    return int(time.time() * 1000)


def _written_at(row: bytes | str) -> int:
    try:
        at = msgspec.json.decode(row)["at"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return 0
    return at if isinstance(at, int) else 0
