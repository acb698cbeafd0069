"""Celery's pools as the dispatcher uses them: prefork, threads, solo, and the asyncio pool.

`requests.py` has the way of a request through Celery.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.worker import state

from flybridge.workers.celery_integration import monitoring
from flybridge.workers.celery_integration.child import LAST_WORDS
from flybridge.workers.celery_integration.requests import EventRequest
from flybridge.workers.celery_integration.tasks import Results

if TYPE_CHECKING:
    from flybridge.workers.backlog.limits import Bucket
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.dispatch.pool_protocol import Call, Finish, Request
    from flybridge.workers.run.items import Item


class WakeUp:
    """Wakes Celery's event loop, from any thread and from the loop itself; once for any number of
    calls between two answers.

    `hub.call_soon` is not enough: what it is given inside a callback waits for the next poll to
    end, up to a second later, and so does a timer of no delay (kombu 5.7).
    """

    def __init__(self) -> None:
        self.answer: Callable[[], None] = lambda: None
        """Called by the loop."""
        self.woken_at: float | None = None
        """Monotonic seconds of the first wake-up that was not answered yet."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def attach(self, hub: Any) -> None:
        """Have this hub answer; to be repeated after each reset of the hub."""
        hub.add_reader(self._reader, self._heard)
        self.woken_at = None
        self.wake()

    def wake(self) -> None:
        """Have the loop call `answer` soon."""
        if self.woken_at is not None:
            return
        self.woken_at = time.monotonic()
        # A full pipe wakes it already.
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        # Before the answer: what comes up while it works must wake it again.
        self.woken_at = None
        self.answer()


class CeleryPool:
    """The pool of one worker; it outlives the consumers that Celery makes.

    Args:
        consumer: Celery's, of now.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._wake_up = WakeUp()

    def resume(self, consumer: Any) -> None:
        """Go on with a consumer that was made, or made anew."""
        self._consumer = consumer
        self._wake_up.attach(consumer.hub)
        if not self.shares_process:
            handlers = consumer.pool._pool._result_handler.state_handlers
            handlers[LAST_WORDS] = _hear_last_words

    @property
    def is_open(self) -> bool:
        """Whether the consumer runs."""
        return bool(self._consumer.blueprint.state == bootsteps.RUN)

    @property
    def slots(self) -> int:
        """How many events the pool runs at once."""
        return slots(self._consumer.pool)

    @property
    def depth(self) -> int:
        """A second one a slot, so that none is idle for a moment.

        The asyncio pool starts at once whatever it is given.
        """
        return self.slots * (1 if _runs_coroutines(self._consumer.pool) else 2)

    @property
    def shares_process(self) -> bool:
        """In all pools but prefork."""
        return not self._consumer.pool.uses_semaphore

    @property
    def bundles(self) -> bool:
        """In all pools but the asyncio one, which gains nothing by it.

        Not while monitors are told: a request has one name.
        """
        consumer = self._consumer
        return not (
            _runs_coroutines(consumer.pool) or monitoring.are_told(consumer.event_dispatcher)
        )

    @property
    def revoked(self) -> Collection[str]:
        """As `celery control revoke` said."""
        revoked: Collection[str] = self._consumer.controller.state.revoked
        return revoked

    def take_on(
        self, task: str, runs: Sequence[Run], items: Sequence[Item], finish: Finish
    ) -> Request:
        """Make a request of them, and have Celery see to it.

        Raises:
            Exception: of Celery's or a signal receiver's.
        """
        request: Request = self._consumer.strategies[task].take_on(runs, items, finish)
        return request

    def bucket_of(self, task: str) -> Bucket | None:
        """Celery's own, so that an operator's `rate_limit` counts."""
        bucket: Bucket | None = self._consumer.task_buckets[task]
        return None if self._consumer.disable_rate_limits else bucket

    def call_after(self, seconds: float, answer: Callable[[], None]) -> Call:
        """By Celery's timer, which dies with the consumer."""
        call: Call = self._consumer.timer.call_after(seconds, answer)
        return call

    def listen(self, answer: Callable[[], None]) -> None:
        """Have Celery's loop call `answer` soon after each `wake`."""
        self._wake_up.answer = answer

    def wake(self) -> None:
        """Callable from any thread."""
        self._wake_up.wake()

    @property
    def woken_at(self) -> float | None:
        """See `WakeUp`."""
        return self._wake_up.woken_at


def _hear_last_words(request_id: str, results: Results) -> None:
    """A child that is about to kill itself says what its request has come to."""
    request = state.requests.get(request_id)
    if isinstance(request, EventRequest):
        request.on_last_words(*results)


def slots(pool: Any) -> int:
    """How many events a pool of Celery's runs at once."""
    return max(1, int(pool.num_processes))


def _runs_coroutines(pool: Any) -> bool:
    return bool(getattr(pool, "runs_coroutines", False))
