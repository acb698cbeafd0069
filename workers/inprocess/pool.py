"""The running event loop as a pool: each request is a task on it, `def` handlers go to threads.

Nothing here waits for Redis, for the caller's program lives on this loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registering.options import per_second
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.run.failures import CRASHED, crashed
from flybridge.workers.run.items import Item

if TYPE_CHECKING:
    from flybridge.workers.backlog.limits import Bucket
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.dispatch.pool_protocol import Call, Finish
    from flybridge.workers.routes.routing import Routing

log = get_logger(__name__)

CANCEL_TIMEOUT = 1.0
"""Seconds that cancelled handlers have to end."""

Process = Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]
"""Runs the handlers of some events, and tells how each fared."""


class LoopRequest:
    """One attempt at one event, or at each of a few, as a task."""

    def __init__(self, task_name: str, runs: Sequence[Run]) -> None:
        self.task_name = task_name
        self.runs = runs
        self.ended = False
        self.is_running = False
        """Its handlers have begun, and have not all ended."""
        # Whichever of two threads pops this first decides whether it begins.
        self._unbegun = [self]
        self.passed_over = False

    def begin(self) -> bool:
        """Whether it may begin: it was not taken back."""
        with suppress(IndexError):
            self._unbegun.pop()
            self.is_running = True
            return True
        self.passed_over = True
        return False

    def take_back(self) -> bool:
        """Give it up unless it has begun; callable from any thread."""
        with suppress(IndexError):
            self._unbegun.pop()
            self.ended = True
            return True
        return False

    def forget(self) -> bool:
        """Give it up, begun or not: its outcomes are ignored."""
        if self.ended:
            return False
        self.ended = True
        return True

    def abandon(self) -> None:
        """Give it up, as `forget` does."""
        self.ended = True


class LoopPool:
    """The loop on which it is made, as a pool; only `ring` and `bucket_of` are for any thread.

    Args:
        concurrency: events at once.
        deserted: called from any thread, once, when the loop was closed without a word.
    """

    shares_process = True
    bundles = False
    revoked: Collection[str] = frozenset()

    def __init__(
        self,
        process: Process,
        routing: Routing,
        concurrency: int,
        deserted: Callable[[], None],
    ) -> None:
        self._process = process
        self._routing = routing
        self._deserted = deserted
        self._loop = asyncio.get_running_loop()
        # What one handler leaves in its context must not be found by the next.
        self._context = contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._buckets: dict[tuple[str, float], Bucket] = {}
        self._answer: Callable[[], None] = lambda: None
        self.woken_at: float | None = None
        self.slots = self.depth = concurrency
        self.is_open = True

    def take_on(
        self, task: str, runs: Sequence[Run], items: Sequence[Item], finish: Finish
    ) -> LoopRequest:
        """Run them from the loop's next turn on."""
        request = LoopRequest(task, runs)
        running = self._loop.create_task(self._run(request, items, finish), name=task)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        return request

    def bucket_of(self, task: str) -> Bucket | None:
        """A new one when the handlers' rate limit has changed."""
        route = self._routing.routes.get(task)
        if route is None or not route.rate_limit:
            return None
        key = task, per_second(route.rate_limit)
        # In one step: if two threads make a bucket each, one of them must count for both.
        # kombu takes a while to import, and most inline workers have no rate limit.
        from kombu.utils.limits import TokenBucket

        bucket: Bucket = self._buckets.get(key) or self._buckets.setdefault(
            key, TokenBucket(key[1])
        )
        return bucket

    def call_after(self, seconds: float, answer: Callable[[], None]) -> Call:
        """By the loop's own timer."""
        return self._loop.call_later(seconds, answer, context=self._context)

    def listen(self, answer: Callable[[], None]) -> None:
        """Have the loop call `answer` soon after each `wake`."""
        self._answer = answer

    def wake(self) -> None:
        """Wakes the loop once for any number of calls between two answers."""
        if self.woken_at is not None:
            return
        self.woken_at = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._heard, context=self._context)
        except RuntimeError:
            # The loop is closed, and nobody told us. For good: the mark stays.
            self._deserted()

    def close(self) -> None:
        """Take no more requests, for good."""
        self.is_open = False

    async def wait_for_all(self, grace: float) -> None:
        """Wait until all requests have ended; after so many seconds, cancel what still runs.

        Whoever cancels this has no more time to give: that only shortens it.
        """
        await self._wait(grace)
        for task in self._tasks:
            task.cancel()
        await self._wait(CANCEL_TIMEOUT)

    async def _wait(self, seconds: float) -> None:
        if self._tasks:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(set(self._tasks), timeout=seconds)

    def _heard(self) -> None:
        # Before the answer: what comes up while it works must wake it again.
        self.woken_at = None
        self._answer()

    async def _run(self, request: LoopRequest, items: Sequence[Item], finish: Finish) -> None:
        if not request.begin():
            return
        try:
            outcomes, error = await self._outcomes(request, items)
        finally:
            request.is_running = False
        if request.ended:
            return
        if error:
            most, alone = self._routing.max_attempts_of(request.task_name), len(request.runs) == 1
            outcomes = [crashed(run, most, error, alone=alone) for run in request.runs]
        request.ended = True
        finish(request, outcomes, CRASHED if error else 0.0)

    async def _outcomes(
        self, request: LoopRequest, items: Sequence[Item]
    ) -> tuple[Sequence[Outcome], str]:
        """The outcomes, or why there are none."""
        try:
            return await self._process(items), ""
        except asyncio.CancelledError:
            # A loop that ends cancels everything at once; let the worker's own task notice first.
            await asyncio.sleep(0)
            if not self.is_open:
                raise
            return (), "CancelledError: something cancelled its task"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit) or not self._loop.is_running():
                raise
            # A bug here, or a GeneratorExit: the event must not be held for ever.
            log.exception("request.failed", task=request.task_name)
            return (), repr(error)
