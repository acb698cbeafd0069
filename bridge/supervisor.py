"""The life of a bridge: standby → leading → standby …, at the end draining → stopped. Others do the
work.

On a lost lease the socket is dropped first: a zombie's socket steals events from the new leader.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress

import structlog
from redis.asyncio import Redis

from bridge.backoff import Backoff
from bridge.durability import NONE, Durability
from bridge.election import Lost
from bridge.errors import LeaseLost
from bridge.feed import Feed
from bridge.headroom import Headroom
from bridge.heartbeat import Heartbeat
from bridge.lease import RELEASE_TIMEOUT, LeaseElector
from bridge.link import Connect, Discover, Link, Pace
from bridge.memory import MemoryWatch
from bridge.publisher import Publisher
from bridge.status import Board, State, Status, now_ms
from bridge.streams import Keys, mark_ttl
from bridge.tally import ACK_BOUNDS, Tally
from bridge.trimming import Trimmer
from bridge.watchdog import Watchdog

DRAIN = 1.0
"""Seconds for publishes in flight and their acks at a stop."""

RETENTION = 86_400.0
MEMORY_THRESHOLD = 0.85
"""Defaults, as in `settings`."""

log = structlog.get_logger("bridge.supervisor")


class Supervisor:
    """One bridge of one app, from start to stop.

    Args:
        discover, connect: see `Link`.
        durability: what an ack waits for; see `durability.fit`.
        retention: seconds for which streams keep what every group has acknowledged.
        memory_threshold: share of Redis' memory limit from which on nothing more is taken in.
        heartbeat: decides on pings, over all connections.
        on_state: called with every new state.
        traced: whether spans are made.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        elector: LeaseElector,
        discover: Discover,
        connect: Connect,
        *,
        durability: Durability = NONE,
        retention: float = RETENTION,
        memory_threshold: float = MEMORY_THRESHOLD,
        pace: Pace | None = None,
        backoff: Backoff | None = None,
        heartbeat: Heartbeat | None = None,
        on_state: Callable[[State], None] = lambda state: None,
        traced: bool = False,
    ) -> None:
        self.tally = Tally(heartbeat=heartbeat or Heartbeat())
        self.pace = pace or Pace()
        self.state = State.STANDBY
        self.on_state = on_state
        self._keys = keys
        self._elector = elector
        self._traced = traced
        self._durability = durability
        self._trimmer = Trimmer(redis, keys, retention)
        self._headroom = Headroom(memory_threshold)
        self._memory = MemoryWatch(redis, self._headroom, on_full=self._trimmer.relieve)
        self._publisher = Publisher(
            redis, keys, durability=durability, marker_ttl=mark_ttl(retention),
            full=lambda: self._headroom.full, on_out_of_memory=self._memory.refused,
            leads=elector.leads, on_fenced=self._on_fenced,
        )  # fmt: skip
        self._board = Board(redis, keys, self.status)
        self._link = Link(
            discover, connect, self._feed, self._publisher, self.tally, self.pace,
            on_change=self._board.change, backoff=backoff,
        )  # fmt: skip
        self._watchdog = Watchdog(elector.timing.lease_duration, lambda: elector.term > 0)
        self._stopping = asyncio.Event()
        self._started = self._since = now_ms()
        elector.on_lost = self._on_lost

    async def run(self) -> None:
        """Stand by, lead, stand by … until `stop`; then drain, close and release, in less than 2 s.

        Raises:
            FeishuRefused: wrong configuration, and no discovery had ever succeeded.
        """
        self._watchdog.start()
        board = asyncio.create_task(self._board.run(), name="status-board")
        work = asyncio.create_task(self._work(), name="supervisor")
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            self._enter(State.DRAINING)
            await self._link.drain(DRAIN)
        finally:
            await self._end(work, board, stop)
        if not work.cancelled():
            work.result()

    def stop(self) -> None:
        """Have `run` end; for a signal handler of the loop."""
        self._stopping.set()

    def status(self) -> Status:
        """This bridge now."""
        return Status(
            identity=self._elector.identity,
            app_id=self._keys.app_id,
            pid=os.getpid(),
            state=self.state,
            at=now_ms(),
            started_at=self._started,
            since=self._since,
            term=self._elector.term,
            leader=self._elector.holder,
            connected_for=_age(self._link.connected_at),
            pong_age=_age(self._link.pong_at),
            pong_seen=self._link.pong_seen,
            offline=self._link.offline,
            trouble=self._link.trouble,
            degraded=self._link.degraded,
            waiting=self._publisher.waiting,
            full=self._headroom.full,
            memory_used=self._headroom.memory.used,
            memory_limit=self._headroom.memory.limit,
            trimmed=self._trimmer.trimmed,
            lagging=self._trimmer.lagging,
            durability=self._durability.profile,
            redis_age=_age(self._elector.answered_at),
            renew_seconds=self._elector.renew_seconds,
            lease_failures=self._elector.failures,
            loop_lag=self._watchdog.lag,
            outcomes=dict(self.tally.outcomes),
            frames=dict(self.tally.frames),
            ack_bounds=list(ACK_BOUNDS),
            ack_counts=list(self.tally.ack_times.counts),
            ack_seconds=self.tally.ack_times.total,
            leaderships=self.tally.leaderships,
            connects=self.tally.connects,
            heartbeat=self.tally.heartbeat.statistics(asyncio.get_running_loop().time(), now_ms()),
        )

    async def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                async with self._elector.lead() as term:
                    self.tally.leaderships += 1
                    self._enter(State.LEADING)
                    async with self._tending():
                        await self._link.hold(term)
            except LeaseLost:
                self._enter(State.STANDBY)
            else:
                self._enter(State.STANDBY)
                await self._sit_out()

    @asynccontextmanager
    async def _tending(self) -> AsyncIterator[None]:
        """Look after Redis while this bridge leads: its memory, and what can be trimmed."""
        tasks = [
            asyncio.create_task(self._memory.run(), name="memory-watch"),
            asyncio.create_task(self._trimmer.run(), name="trimmer"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _sit_out(self) -> None:
        """Leave the lease to another host for once; it was released just now."""
        pause = self._elector.timing.lease_duration
        log.warning("lease.given_up", offline_for=self.pace.patience, back_in=pause)
        await asyncio.sleep(pause)

    async def _end(self, work: asyncio.Task[None], *others: asyncio.Task[object]) -> None:
        """End what `run` started, the socket first.

        Lease and board are given up side by side: a Redis that hangs is waited for once.
        """
        for task in (work, *others):
            task.cancel()
        await asyncio.gather(asyncio.wait({work}), self._leave_board(others))
        await self._publisher.close()
        self._watchdog.stop()
        self._enter(State.STOPPED)
        log.info("bridge.stopped", **self.tally.outcomes)

    async def _leave_board(self, others: Collection[asyncio.Task[object]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await asyncio.wait(others)
                await self._board.remove()

    def _feed(self, term: int) -> Feed:
        return Feed(self._publisher, self._keys, term, self.tally, traced=self._traced)

    def _on_fenced(self, term: int) -> None:
        if term != self._elector.term:  # else what was fenced had waited since an earlier term
            self._elector.step_down("fenced")

    def _on_lost(self, lost: Lost) -> None:
        self._link.abort()
        if self.state is State.LEADING:
            self._enter(State.STANDBY)

    def _enter(self, state: State) -> None:
        if self._stopping.is_set() and state in (State.STANDBY, State.LEADING):
            return  # a lease that comes or goes while draining changes nothing
        if state is not self.state:
            self.state, self._since = state, now_ms()
            log.info("bridge.state_changed", state=state.value, term=self._elector.term)
            self._board.change()
            self.on_state(state)


def _age(instant: float | None) -> float | None:
    """Seconds since an instant of the monotonic clock, which is the loop's as well."""
    return None if instant is None else asyncio.get_running_loop().time() - instant
