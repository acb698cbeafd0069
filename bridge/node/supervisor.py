"""The life of a bridge: standby → leading → standby …, at the end draining → stopped.

A bridge that Feishu refuses, or that cannot connect, gives the lease up and does not take it back
at once. When the lease is lost, the socket is dropped first: it would steal events from the new
leader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial

from redis.asyncio import Redis

from flybridge.bridge.config.lease_timing import Timing
from flybridge.bridge.errors import LeaseLost, NotConnected
from flybridge.bridge.feishu.backoff import Attempts, Backoff, Pace
from flybridge.bridge.feishu.connection import Connection
from flybridge.bridge.feishu.discovery import Discovery, Endpoint
from flybridge.bridge.housekeeping.memory import MemoryWatch
from flybridge.bridge.housekeeping.trimming import Trimmer
from flybridge.bridge.leadership.election import LossReason, Lost
from flybridge.bridge.leadership.lease import RELEASE_TIMEOUT, LeaseElector
from flybridge.bridge.leadership.watchdog import Watchdog
from flybridge.bridge.lifecycle import Leading, SteppedDown
from flybridge.bridge.node.credentials import Credentials
from flybridge.bridge.node.reconnector import Connect, Reconnector
from flybridge.bridge.node.self_report import SelfReport
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.ops.status import Board, State, Status, now_ms
from flybridge.bridge.process.task_watch import TaskWatch
from flybridge.bridge.protocol.heartbeat import Heartbeat
from flybridge.bridge.publishing.admission import Admission
from flybridge.bridge.publishing.counters import Counters
from flybridge.bridge.publishing.durability import NONE, Durability
from flybridge.bridge.publishing.feed import Feed
from flybridge.bridge.publishing.publisher import DEAD_LETTERS, Publisher
from flybridge.bridge.store.lifetimes import mark_ttl
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

DRAIN = 1.0
"""Seconds for publishes in flight and their acks at a stop."""

RETENTION = 86_400.0
MEMORY_THRESHOLD = 0.85
"""Defaults, as in `settings`."""

log = get_logger(__name__)


class Supervisor:
    """One bridge of one app, from start to stop.

    Args:
        identity: unique; see `new_identity`.
        on_asked: called after each lease call in standby.
        durability: what an ack waits for; see `fit`.
        dead_letters: how many of its own the bridge keeps.
        retention: seconds that streams keep what every group has acknowledged.
        memory_threshold: share of Redis' memory limit from which on no more events are taken in.
        traced: whether spans are made.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        identity: str,
        discovery: Discovery,
        connect: Connect,
        *,
        timing: Timing | None = None,
        on_asked: Callable[[], None] = lambda: None,
        durability: Durability = NONE,
        admission: Admission | None = None,
        dead_letters: int = DEAD_LETTERS,
        attempts: Attempts | None = None,
        retention: float = RETENTION,
        memory_threshold: float = MEMORY_THRESHOLD,
        pace: Pace | None = None,
        backoff: Backoff | None = None,
        heartbeat: Heartbeat | None = None,
        lifecycle: Subscribers | None = None,
        traced: bool = False,
    ) -> None:
        self.counters = Counters(heartbeat=heartbeat or Heartbeat())
        self.pace = pace or Pace()
        self.state = State.STANDBY
        self._lifecycle = lifecycle or Subscribers()
        self._attempts = attempts or Attempts()
        self._on_asked = on_asked
        self._tasks = TaskWatch()
        self._led = 0
        self._sits_out_until = 0.0
        self.elector = LeaseElector(redis, keys, identity, self, timing=timing, tasks=self._tasks)
        self._trimmer = Trimmer(redis, keys, retention)
        self._memory = MemoryWatch(redis, memory_threshold, self._trimmer, self._lifecycle)
        self._housekeepers: tuple[asyncio.Task[None], ...] = ()
        self._publisher = Publisher(
            redis, keys, self.elector, self._memory, self._tasks, self._lifecycle,
            durability=durability, admission=admission, marker_ttl=mark_ttl(retention),
            dead_letters=dead_letters,
        )  # fmt: skip
        self._board = Board(redis, keys)
        self._credentials = Credentials(
            discovery, self.pace, self._attempts, self._board, self._lifecycle
        )
        self._reconnector = Reconnector(
            self._credentials, connect,
            partial(Feed, self._publisher, keys, self.counters, traced=traced),
            self._publisher, self.counters, self.pace, backoff or Backoff(), self._attempts,
            self._board, self._lifecycle,
        )  # fmt: skip
        self._watchdog = Watchdog(self.elector.timing.lease_duration, lambda: self.leads)
        self._stopping = asyncio.Event()
        self._since = now_ms()
        self._report = SelfReport(
            keys.app_id, durability.profile, self.elector, self._credentials, self._reconnector,
            self._publisher, self._memory.headroom, self._trimmer, self._watchdog, self.counters,
        )  # fmt: skip

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint of the leader's connection; None: there is none."""
        return self._reconnector.endpoint

    @property
    def connection(self) -> Connection | None:
        """The open connection of a leader; None: there is none."""
        connection = self._reconnector.connection
        return connection if connection is not None and connection.is_open else None

    @property
    def leads(self) -> bool:
        """Whether it holds the lease, as far as it knows."""
        return self.elector.term > 0

    @property
    def failed_attempts(self) -> int:
        """Attempts to connect that failed, ever."""
        return self._attempts.failures

    @property
    def trouble(self) -> str:
        """Why there is no connection."""
        if self.state is State.LEADING:
            return self._reconnector.trouble or "it is about to connect"
        if self._credentials.trouble:
            return f"it is {self.state}; {self._credentials.trouble}"
        holder = self.elector.holder or "nobody, as far as it knows,"
        return f"it is {self.state}, and {holder} leads; only the leader is connected"

    async def run(self) -> None:
        """Stand by and lead in turn until `stop`; then drain, close and release, in less than 2 s.

        Raises:
            FeishuRefused: wrong configuration, and Feishu had never let this bridge in.
            ConnectionOver: the settings allow no further attempt to connect.
            TaskFailed: a mistake of ours.
        """
        self._watchdog.start()
        board = self._tasks.start(self._board.run(self.status), "status-board")
        asking = asyncio.create_task(
            self._credentials.watch(lambda: self.leads), name="credentials"
        )
        work = asyncio.create_task(self._work(), name="supervisor")
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        failed = asyncio.create_task(self._tasks.failed.wait(), name="failed")
        try:
            await asyncio.wait({work, asking, stop, failed}, return_when=asyncio.FIRST_COMPLETED)
            self._enter(State.DRAINING)
            await self._reconnector.drain(DRAIN)
        finally:
            await self._end(work, asking, board, stop, failed, *self._housekeepers)
        self._tasks.check()
        for task in (asking, work):
            if task.done() and not task.cancelled():
                task.result()

    def stop(self) -> None:
        """Let `run` end; for a signal handler of the loop."""
        self._stopping.set()

    async def reconnect(self) -> None:
        """Close the connection, if there is one, and make the next attempt at once.

        Raises:
            NotConnected: this bridge does not lead.
        """
        if self.state is not State.LEADING:
            raise NotConnected(f"This bridge cannot reconnect: {self.trouble}.")
        await self._reconnector.reconnect(DRAIN)

    def status(self) -> Status:
        """The status of this bridge."""
        return self._report.status(self.state, self._since)

    async def _work(self) -> None:
        await self._credentials.asked.wait()
        while not self._stopping.is_set():
            try:
                async with self._leading() as term, self._housekeeping():
                    await self._reconnector.hold(term)
            except LeaseLost:
                self._enter(State.STANDBY)
            else:
                self._enter(State.STANDBY)
                self._sit_out()

    @asynccontextmanager
    async def _leading(self) -> AsyncIterator[int]:
        """Hold the lease, and tell subscribers."""
        try:
            async with self.elector.lead() as term:
                self.counters.leaderships += 1
                self._led = term
                self._enter(State.LEADING)
                self._lifecycle.tell(Leading(term))
                yield term
        finally:
            self._stepped_down("released")

    @asynccontextmanager
    async def _housekeeping(self) -> AsyncIterator[None]:
        """Watch Redis' memory and trim the streams until the block ends."""
        memory = self._tasks.start(self._memory.run(), "memory-watch")
        trimmer = self._tasks.start(self._trimmer.run(), "trimmer")
        self._housekeepers = memory, trimmer
        try:
            yield
        finally:
            for task in self._housekeepers:
                task.cancel()

    def _stepped_down(self, reason: LossReason) -> None:
        if self._led:
            term, self._led = self._led, 0
            self._lifecycle.tell(SteppedDown(term, reason))

    def _sit_out(self) -> None:
        """Leave the lease to another bridge for a while; it was released just now."""
        if self._credentials.are_refused:
            log.warning("lease.given_up", reason="refused by Feishu")
            return
        pause = self.elector.timing.lease_duration
        self._sits_out_until = time.monotonic() + pause
        log.warning("lease.given_up", offline_for=self.pace.patience, back_in=pause)

    # What the elector asks and tells its candidate

    def may_lead(self) -> bool:
        return not self._credentials.are_refused and time.monotonic() >= self._sits_out_until

    def asked(self) -> None:
        self._on_asked()

    def lost(self, lost: Lost) -> None:
        self._reconnector.abort()
        if self.state is State.LEADING:
            self._enter(State.STANDBY)
        self._stepped_down(lost.reason)

    async def _end(self, work: asyncio.Task[None], *others: asyncio.Task[object]) -> None:
        """End the tasks of `run`, the socket first.

        Lease and board are given up side by side, so that a hung Redis is waited for once.
        """
        for task in (work, *others):
            task.cancel()
        try:
            await asyncio.gather(asyncio.wait({work}), self._leave_board(others))
            await self._publisher.close()
        finally:  # even if cancelled again: its thread would live on
            self._watchdog.stop()
        self._enter(State.STOPPED)
        log.info("bridge.stopped", **self.counters.outcomes)

    async def _leave_board(self, others: Collection[asyncio.Task[object]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await asyncio.wait(others)
                await self._board.remove(self.elector.identity)

    def _enter(self, state: State) -> None:
        if self._stopping.is_set() and state in (State.STANDBY, State.LEADING):
            return  # a lease that comes or goes while draining changes nothing
        if state is not self.state:
            self.state, self._since = state, now_ms()
            log.info("bridge.state_changed", state=state.value, term=self.elector.term)
            self._board.change()
