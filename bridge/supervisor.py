"""The life of a bridge: standby → leading → standby …, at the end draining → stopped. Others do the
work.

On a lost lease the socket is dropped first: a zombie's socket steals events from the new leader.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import structlog
from redis.asyncio import Redis

from bridge.backoff import Backoff
from bridge.election import Lost
from bridge.errors import LeaseLost
from bridge.feed import Feed
from bridge.lease import LeaseElector
from bridge.link import Connect, Discover, Link, Pace
from bridge.publisher import Publisher
from bridge.status import Board, State, Status, now_ms
from bridge.streams import Keys
from bridge.tally import Tally
from bridge.watchdog import Watchdog

DRAIN = 1.0
"""Seconds for publishes in flight and their acks at a stop."""

log = structlog.get_logger("bridge.supervisor")


class Supervisor:
    """One bridge of one app, from start to stop.

    Args:
        discover, connect: see `Link`.
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
        pace: Pace | None = None,
        backoff: Backoff | None = None,
        on_state: Callable[[State], None] = lambda state: None,
        traced: bool = False,
    ) -> None:
        self.tally = Tally()
        self.pace = pace or Pace()
        self.state = State.STANDBY
        self.on_state = on_state
        self._keys = keys
        self._elector = elector
        self._traced = traced
        self._publisher = Publisher(
            redis, keys, leads=elector.leads, on_fenced=lambda: elector.step_down("fenced")
        )
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
            redis_age=_age(self._elector.answered_at),
            renew_seconds=self._elector.renew_seconds,
            lease_failures=self._elector.failures,
            loop_lag=self._watchdog.lag,
            outcomes=dict(self.tally.outcomes),
            frames=dict(self.tally.frames),
            ack_counts=list(self.tally.ack_times.counts),
            ack_seconds=self.tally.ack_times.total,
            leaderships=self.tally.leaderships,
            connects=self.tally.connects,
        )

    async def _work(self) -> None:
        while True:
            try:
                async with self._elector.lead() as term:
                    self.tally.leaderships += 1
                    self._enter(State.LEADING)
                    await self._link.hold(term)
            except LeaseLost:
                self._enter(State.STANDBY)
            else:
                self._enter(State.STANDBY)
                await self._sit_out()

    async def _sit_out(self) -> None:
        """Leave the lease to another host for once; it was released just now."""
        pause = self._elector.timing.lease_duration
        log.warning("lease.given_up", offline_for=self.pace.patience, back_in=pause)
        await asyncio.sleep(pause)

    async def _end(self, work: asyncio.Task[None], *others: asyncio.Task[object]) -> None:
        """End what `run` started, the socket and the lease first."""
        for tasks in ({work}, set(others)):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._publisher.close()
        self._watchdog.stop()
        self._enter(State.STOPPED)
        await self._board.remove()
        log.info("bridge.stopped", **self.tally.outcomes)

    def _feed(self, term: int) -> Feed:
        return Feed(self._publisher, self._keys, term, self.tally, traced=self._traced)

    def _on_lost(self, lost: Lost) -> None:
        self._link.abort()
        if self.state is State.LEADING:
            self._enter(State.STANDBY)

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state, self._since = state, now_ms()
            log.info("bridge.state_changed", state=state.value, term=self._elector.term)
            self._board.change()
            self.on_state(state)


def _age(instant: float | None) -> float | None:
    """Seconds since an instant of the monotonic clock, which is the loop's as well."""
    return None if instant is None else asyncio.get_running_loop().time() - instant
