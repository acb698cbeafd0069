"""The inline worker: runs handlers on the caller's event loop, with no Celery and no broker.

It claims, limits, retries and buries as Celery's workers do, and may share a group with them; only
the pool is another. It has no processes of its own: a handler that blocks the loop, or kills its
process, does so to the whole program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from flybridge.bridge.errors import Misused
from flybridge.bridge.store.client import check_server_sync, sync_client
from flybridge.workers.dispatch.assembly import started
from flybridge.workers.inprocess.live_routes import LiveRoutes
from flybridge.workers.inprocess.run import GRACE, InlineRun

if TYPE_CHECKING:
    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.handlers.registry import Registry

__all__ = ["InlineWorker"]


T = TypeVar("T")


class InlineWorker:
    """Runs the handlers of a registry for all events of an app. Start after stop works.

    `async def` handlers run on the loop that `start` was awaited on, `def` handlers in threads.
    Nothing of it blocks the loop. Handlers may be registered and unregistered while it runs.

    Args:
        settings: app id, Redis, group and so on; `handlers` and `broker_url` mean nothing here.
        registry: the handlers.
        concurrency: events in work at once.
    """

    def __init__(
        self, settings: WorkerSettings, registry: Registry, *, concurrency: int = 100
    ) -> None:
        self._settings = settings
        self._registry = registry
        if settings.unhandled == "done":
            registry.settle_unhandled()
        self._concurrency = max(1, concurrency)
        self._changing = asyncio.Lock()
        self._run: InlineRun | None = None

    @property
    def is_running(self) -> bool:
        """Whether it takes events."""
        return self._run is not None and not self._run.task.done()

    async def start(self) -> None:
        """Take up the streams.

        Raises:
            Misused: it runs already.
            RegistrationInvalid: handlers of one type contradict each other.
            RedisUnreachable, RedisUnfit: nothing runs then.
        """
        async with self._changing:
            if self.is_running:
                raise Misused("This worker runs already; await stop() before another start().")
            parallel = self._settings.parallel_handlers
            routes = LiveRoutes(self._registry, parallel=parallel)
            begun = await _in_thread(self._ask_redis)
            self._run = InlineRun(self._settings, self._registry, routes, self._concurrency, begun)
            # A task that is cancelled before its first step never runs, not even to clean up.
            await asyncio.sleep(0)

    async def wait(self) -> None:
        """Wait until it has ended, by `stop` or by itself.

        Raises:
            TaskFailed: why it ended by itself.
            Misused: it was never started.
        """
        if self._run is None:
            raise Misused("This worker was never started; await start() first.")
        task = self._run.task
        await asyncio.wait({task})
        task.result()

    async def stop(self, grace: float = GRACE) -> None:
        """Take nothing new, let running handlers end, settle, leave. No error if it does not run.

        What has not begun is given back; so is what has not ended in time, after its coroutine was
        cancelled. It counts as no attempt, and any worker may run it at once. A `def` handler
        cannot be cancelled: its thread goes on, unheard and told of as `handler.left`, and other
        workers may run its event after 5 s; end the process by then. Whoever cancels this call
        cancels only the waiting: stopping goes on.

        Args:
            grace: seconds for the running handlers.
        """
        async with self._changing:
            if self._run is not None:
                self._run.ask_to_end(grace)
                await asyncio.wait({self._run.task})

    def in_work(self) -> Mapping[str, Any]:
        """What runs, as fields of a log line; callable from any thread."""
        return self._run.in_work() if self._run is not None else {}

    def abandon(self) -> None:
        """Give back all that has not ended, not counted as an attempt. Callable from any thread.

        For a process that ends at once after this: what it runs meanwhile goes unheard.
        """
        if self._run is not None:
            self._run.abandon()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _ask_redis(self) -> int | None:
        """Whether it is fit, and what time it has."""
        settings = self._settings
        with closing(sync_client(settings.redis_url, app_id=settings.app_id)) as client:
            check_server_sync(client, settings.eviction)
        return started(settings)


async def _in_thread(work: Callable[[], T]) -> T:
    """In a thread of its own: the loop's own threads may all be busy with the caller's work."""
    executor = ThreadPoolExecutor(1, "flybridge-inline")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, work)
    finally:
        executor.shutdown(wait=False)
