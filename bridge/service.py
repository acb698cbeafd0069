"""Runs a bridge and, if wanted, a worker in one process; they live and die together.

Inside a running loop: `async with service`, or `start`, `wait` and `stop`. As a program: `run`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from flybridge.bridge.config.advice import warn
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.errors import BridgeError, Misused
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.node.startable import Startable
from flybridge.bridge.process import gc_freeze
from flybridge.bridge.process.signals import Watch, stop_on_signals
from flybridge.bridge.telemetry import logs, tracing
from flybridge.handlers.registry import Registry

__all__ = ["Service"]


class Worker(Protocol):
    """Runs the handlers in this process; see `InlineWorker`."""

    async def start(self) -> None: ...
    async def wait(self) -> None: ...
    async def stop(self) -> None: ...
    def in_work(self) -> Mapping[str, Any]: ...
    def abandon(self) -> None: ...


class Service(Startable):
    """A bridge and perhaps a worker. The worker starts before the bridge and stops after it.

    When one of the two ends by itself, the other is stopped, and `wait` raises why. A service may
    be started again after a stop. Logs and signals are left to the program, except in `run`:
    `log_level` and `EnableLogging` hold everywhere, `log_format` only in `run`.

    Args:
        worker: None: only a bridge.
    """

    def __init__(self, settings: BridgeSettings, registry: Registry, worker: Worker | None) -> None:
        super().__init__("service", "service.ended")
        self.settings = settings
        self.registry = registry
        """The handlers; they may change while it runs."""
        self.manager = ConnectionManager(settings)
        """The bridge."""
        self._worker = worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changing = asyncio.Lock()
        self._is_stopped = False
        self._signals: Watch | None = None

    async def start(self) -> None:
        """Start, and return once events are handled and the outcome of the bridge's start is known.

        Raises:
            Misused: it runs already.
            BridgeError: it cannot start, and nothing of it runs. See `ConnectionManager.start`.
        """
        async with self._change():
            self._refuse_if_running()
            self._task = None
            self._is_stopped = False
            logs.embed(self.settings.log_level, secrets=self.settings.secrets)
            warn(self.settings.unwise)
            try:
                await self._start_both()
            except BaseException:
                await self._stop_both()
                raise
            self._launch(self._watch())

    async def stop(self) -> None:
        """Close the connection, then let running handlers finish. It may be called when stopped.

        What ended it before comes out of `wait`.
        """
        async with self._change():
            await self._stop_both()
            self._is_stopped = True
        if self._task is not None:
            await asyncio.wait({self._task})

    def run(self) -> None:
        """Configure the logs, and run until SIGTERM or SIGINT; for the main thread of a program.

        A second signal ends the process within 2 s; events in work go back to Redis.

        Raises:
            SystemExit: it could not start, or ended by itself; the exit code is that of the command
                line, and the sentence is on stderr.
            Misused: a loop runs in this thread already, or this is not the main thread.
        """
        if _in_a_loop():
            raise Misused("run() blocks, and a loop runs here already; use `async with` instead.")
        if threading.current_thread() is not threading.main_thread():
            raise Misused("run() takes signals, which only the main thread can; call it there.")
        settings = self.settings
        logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets)
        try:
            asyncio.run(self._serve())
        except BridgeError as error:
            logs.say_last(str(error), as_json=settings.log_format == "json")
            raise SystemExit(error.exit_code) from None
        finally:
            if self._signals is not None:
                self._signals.close()

    async def _serve(self) -> None:
        stop = asyncio.Event()
        worker = self._worker
        options = {"waits_for": worker.in_work, "give_back": worker.abandon} if worker else {}
        self._signals = stop_on_signals(stop.set, **options)
        traces = tracing.start(tracing.BRIDGE)
        running = asyncio.create_task(self._run())
        signalled = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({running, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if self._task is None:
                running.cancel()
            await self.stop()
            await asyncio.wait({running})
        finally:
            signalled.cancel()
            traces.shutdown()
        if not running.cancelled():
            running.result()

    async def _run(self) -> None:
        await self.start()
        gc_freeze.settle()
        await self.wait()

    async def _watch(self) -> None:
        """Wait until one of the two has ended, then stop the other."""
        parts = [part for part in (self.manager, self._worker) if part is not None]
        tasks = [asyncio.create_task(part.wait()) for part in parts]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        async with self._change():
            if not self._is_stopped:  # else a subscriber that called `stop` would be cancelled
                await self._stop_both()
        await asyncio.wait(tasks)
        errors = [error for task in tasks if (error := task.exception())]
        if errors:
            raise errors[0]

    def _change(self) -> asyncio.Lock:
        """A lock for one start or stop at a time; it belongs to the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._changing = loop, asyncio.Lock()
        return self._changing

    async def _start_both(self) -> None:
        if self._worker is not None:
            await self._worker.start()
        await self.manager.start()

    async def _stop_both(self) -> None:
        try:
            await self.manager.stop()
        finally:
            if self._worker is not None:
                await self._worker.stop()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
