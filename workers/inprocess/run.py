"""One run of an inline worker, from its start to its end, however that comes about."""

from __future__ import annotations

import asyncio
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flybridge.bridge.errors import TaskFailed
from flybridge.bridge.process.signals import LEFT_TO_GIVE_BACK
from flybridge.handlers.calling.threads import HandlerThreads
from flybridge.handlers.loggers import get_logger
from flybridge.workers.dispatch.assembly import assemble, consumer_name
from flybridge.workers.inprocess.pool import LoopPool
from flybridge.workers.intake.selection import Share
from flybridge.workers.run import batch_runner
from flybridge.workers.run.handler_spans import handler_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.handlers.registry import Registry
    from flybridge.workers.claim.outcomes import Outcome
    from flybridge.workers.inprocess.live_routes import LiveRoutes
    from flybridge.workers.run.items import Item

log = get_logger(__name__)

GRACE = 10.0
"""Seconds that running handlers have to end, unless `stop` is told otherwise."""


class InlineRun:
    """Runs a worker on the running loop, from when it is made.

    Args:
        concurrency: events in work at once.
        started: see `flybridge.workers.dispatch.assembly.started`.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        registry: Registry,
        following: LiveRoutes,
        concurrency: int,
        started: int | None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._following = following
        self._loop = asyncio.get_running_loop()
        self._grace = GRACE
        self._failed = False
        self._over = False
        self._to_end = asyncio.Event()
        # For the end, which waits for Redis.
        self._blocking = ThreadPoolExecutor(1, "flybridge-inline")
        self._threads = HandlerThreads()
        self._pool = LoopPool(self._process, following.routing, concurrency, self._deserted)
        self._name = consumer_name(f"inline@{platform.node()}")
        self._worker = assemble(
            settings,
            registry,
            following.routing,
            Share(self._queues, lambda _: True),
            self._pool,
            self._name,
            self._died,
            started,
        )
        self._worker.held.slots = concurrency
        self._worker.start(self._tell_started)
        self.task = asyncio.create_task(self._serve(), name="inline worker")
        """Ends with the shift; its exception is why that ended by itself."""
        self.task.add_done_callback(_heed)

    def _tell_started(self) -> None:
        log.info(
            "inline.started",
            group=self._settings.group,
            consumer=self._name,
            handlers=" ".join(registration.name for registration in self._registry.list()),
        )

    def _queues(self) -> Collection[str]:
        """All that there are now; asked every second, by the thread that reads."""
        self._following.look()
        return self._following.routing.queues()

    async def _process(self, items: Sequence[Item]) -> Sequence[Outcome]:
        parallel = self._settings.parallel_handlers
        return await batch_runner.run_async(
            self._registry, items, handler_spans, parallel=parallel, threads=self._threads
        )

    def ask_to_end(self, grace: float) -> None:
        """Have the task end; a second call changes nothing."""
        if not self._to_end.is_set():
            self._grace = grace
            self._to_end.set()

    def in_work(self) -> dict[str, Any]:
        """See `Dispatcher.in_work`."""
        return self._worker.dispatcher.in_work()

    def abandon(self) -> None:
        """Give back all that has not ended; the process ends next. Callable from any thread."""
        self._worker.abandon(LEFT_TO_GIVE_BACK)

    async def _serve(self) -> None:
        try:
            await self._to_end.wait()
        except asyncio.CancelledError:
            # The loop ends, and so does what runs on it.
            self._grace = 0.0
        self._pool.close()
        stopped = self._in_thread(self._worker.intake.stop)
        await self._pool.wait_for_all(self._grace)
        await _surely(stopped)
        # Who has not ended by now is given back, when the intake closes.
        self._worker.dispatcher.recall()
        await _surely(self._in_thread(self._worker.close))
        await _surely(self._in_thread(self._worker.disconnect))
        self._threads.shutdown()
        self._blocking.shutdown(wait=False)
        self._over = True
        log.info("inline.stopped", settled=self._worker.settler.settled)
        if self._failed:
            raise TaskFailed(
                "The inline worker ended by a bug of Flybridge: see the traceback in the log. "
                "Start it again."
            )

    def _in_thread(self, work: Callable[[], None]) -> asyncio.Future[None]:
        return self._loop.run_in_executor(self._blocking, work)

    def _died(self) -> None:
        """A thread of the intake has ended by a bug; called by that thread."""
        self._failed = True
        try:
            self._loop.call_soon_threadsafe(self.ask_to_end, GRACE)
        except RuntimeError:
            self._deserted()

    def _deserted(self) -> None:
        """The loop was closed, so nothing of what is held will run. Called from any thread."""
        if self._over:
            return
        threading.Thread(target=self._abandon, name="flybridge-inline-end", daemon=True).start()

    def _abandon(self) -> None:
        log.error("inline.deserted", hint="await stop() before you close the event loop")
        self._worker.intake.stop()
        self._worker.close()
        self._worker.disconnect()


async def _surely(done: asyncio.Future[None]) -> None:
    """Wait to the end, however often this is cancelled: else events would stay held."""
    while not done.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({done})
    done.result()


def _heed(task: asyncio.Task[None]) -> None:
    """Retrieve its exception, or asyncio would log it where nobody waits for the task."""
    if not task.cancelled():
        task.exception()
