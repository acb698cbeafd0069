"""Acquires, renews and releases the lease in Redis.

The lease's record never expires, so that terms only grow.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from flybridge.bridge.config.lease_timing import Timing
from flybridge.bridge.errors import LeaseLost
from flybridge.bridge.leadership.election import Acquired, Answer, Election, Lost
from flybridge.bridge.process.boottime import boottime
from flybridge.bridge.process.cancellation import heed_cancellation
from flybridge.bridge.process.task_watch import TaskWatch
from flybridge.bridge.store.redis_rights import UnusableKey
from flybridge.bridge.store.scripts import Call, load, run_one
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

RELEASE_TIMEOUT = 0.5
"""Seconds a release may take. If it fails, the others wait until the lease has run out."""

DROP_TIMEOUT = 0.1
"""Seconds for closing connections that nobody waits for."""

log = get_logger(__name__)


def new_identity() -> str:
    """Host, process id and a random part: unique even among containers."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Candidate(Protocol):
    """Stands for the lease."""

    def may_lead(self) -> bool:
        """Asked before every call in standby. While False, calls only read who holds the lease."""

    def asked(self) -> None:
        """Called after every call in standby, answered or not."""

    def lost(self, lost: Lost) -> None:
        """Called when the lease is lost, before anything else runs: close the socket here."""


class LeaseElector:
    """Acquires and renews the lease of one app for a candidate.

    Args:
        redis: its commands may be retried (the script is idempotent); every call has a timeout
            here.
        identity: unique per process; see `new_identity`.
        tasks: starts the renewal.
        clock: monotonic seconds; see `boottime`.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        identity: str,
        candidate: Candidate,
        *,
        timing: Timing | None = None,
        tasks: TaskWatch | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.identity = identity
        self.timing = timing or Timing()
        self.answered_at: float | None = None
        """When Redis last answered, by `clock`."""
        self.renew_seconds = 0.0
        """How long the last answer took."""
        self.failures = 0
        """Calls without an answer, ever."""
        self._redis, self._candidate = redis, candidate
        self._tasks = tasks or TaskWatch()
        self._key = keys.lease
        self._clock = clock
        self._election = Election(self.timing)
        self._scope: asyncio.Timeout | None = None
        self._candidacy = 1
        self._stands = False
        self._spoilt = UnusableKey(keys.lease, "this bridge cannot lead", load("lease").text)

    @property
    def term(self) -> int:
        """Of the present leadership; 0 in standby."""
        return self._election.term

    @property
    def holder(self) -> str:
        """The identity of the leader, as far as is known; empty when nobody leads."""
        return self._election.holder

    def leads(self) -> bool:
        """Whether this process may act as the leader now; steps down at once when it may not.

        Ask before every publish: after a pause (SIGSTOP, a stalled machine) this may run before any
        timer does.
        """
        now = self._clock()
        if self._election.leads(now):
            return True
        self._take(self._election.expired(now))
        return False

    def fenced(self, term: int) -> None:
        """A publish was fenced, since Redis holds this term: step down if our term is another.

        If it is ours, the publish had waited since an earlier term.
        """
        if self.term not in (0, term):
            self._take(self._election.lose("fenced"))

    async def wait_until_leading(self) -> int:
        """Ask until the lease is ours, and return the term. Only `lead` renews it."""
        leader = ""
        while True:
            left = await self._ask()
            self._candidate.asked()
            if self.term:
                return self.term
            if self.holder not in ("", leader):
                leader = self.holder
                log.info("bridge.stands_by", leader=leader)
            await asyncio.sleep(self._election.delay(random.random(), left))  # noqa: S311

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[int]:
        """Wait for the lease, renew it while the body runs, release it after; yields the term.

        Raises:
            LeaseLost: the lease was lost; the body has been cancelled.
        """
        scope = asyncio.timeout(None)
        try:
            term = await self.wait_until_leading()
            async with scope:
                keeper = self._tasks.start(self._keep(), "lease-keeper")
                self._scope = scope
                try:
                    yield term
                finally:
                    self._scope = None
                    keeper.cancel()
        except TimeoutError:
            if not scope.expired():
                raise
            raise LeaseLost(f"term {term} is over; another process may lead") from None
        finally:
            await self.release()

    async def release(self) -> None:
        """Release the lease, if it is ours; whatever it guarded must have ended before.

        A standby calls it too: its last call may have been granted without its knowing, or may
        reach Redis after this one, which then takes nothing any more.
        """
        term = self.term
        self._election.lose("released")
        if not self._stands:
            return
        self._stands = False
        try:
            # At a stop this task is being cancelled, and there `asyncio.timeout` of Python 3.11.2
            # raises no TimeoutError.
            await asyncio.wait_for(self._call("release", term), RELEASE_TIMEOUT)
        except Exception as error:  # the lease runs out by itself; stopping must go on
            log.warning("lease.release_failed", term=term, error=repr(error))
        else:
            if term:
                log.info("lease.released", term=term)
        finally:
            self._candidacy += 1

    async def _keep(self) -> None:
        while self.term:
            remaining = self._election.remaining(self._clock())
            await asyncio.sleep(min(self._election.delay(random.random()), remaining))  # noqa: S311
            await self._ask()

    async def _ask(self) -> float:
        """Make one call; returns the seconds until a standby should ask again."""
        stands = self.term > 0 or self._candidate.may_lead()
        self._stands = self._stands or stands
        sent = self._clock()
        try:
            async with asyncio.timeout(self._patience(sent)):
                answer = await self._call("hold" if stands else "look", self.term)
        except Exception as error:  # whatever it was, it was no renewal: the deadline decides
            self._failed(error)
            self._take(self._election.expired(self._clock()))
            if not isinstance(error, ResponseError):
                await self._drop_connections()
            heed_cancellation()
            return self.timing.lease_duration
        heed_cancellation()
        now = self._clock()
        self._spoilt.succeeded()
        self.answered_at, self.renew_seconds = now, now - sent
        self._take(self._election.answered(answer, sent, now))
        return answer.left if stands else self.timing.lease_duration

    def _patience(self, now: float) -> float:
        """Half the deadline, so that one stuck call leaves time for another."""
        half = self.timing.renew_deadline / 2
        return min(half, self._election.remaining(now)) if self.term else half

    async def _call(self, mode: str, term: int) -> Answer:
        duration = round(self.timing.lease_duration * 1000)
        arguments = (mode, self.identity, duration, term, self._candidacy)
        call = Call(load("lease"), (self._key,), arguments)
        granted, holder, left = await run_one(self._redis, call)
        return Answer(int(granted), holder.decode(), int(left) / 1000)

    async def _drop_connections(self) -> None:
        """Drop idle connections: they may be as dead as the one that did not answer."""
        with suppress(RedisError, OSError):
            async with asyncio.timeout(DROP_TIMEOUT):
                await self._redis.connection_pool.disconnect(inuse_connections=False)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._spoilt.failed(error)
        log.debug("lease.unanswered", term=self.term, error=repr(error), failures=self.failures)

    def _take(self, change: Acquired | Lost | None) -> None:
        if isinstance(change, Acquired):
            log.info("lease.acquired", term=change.term, identity=self.identity)
        elif change is not None:
            self._lose(change)

    def _lose(self, lost: Lost) -> None:
        self._candidate.lost(lost)
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())
        log.warning("lease.lost", term=lost.term, reason=lost.reason, holder=lost.holder)
