"""What a program starts, waits for and stops: a manager or a service."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self

from flybridge.bridge.errors import BridgeError, Misused
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)


class Startable(ABC):
    """Runs in one task. The error that ends it is raised by `wait`, and logged if nobody waits.

    Args:
        noun: what sentences call it.
        event: the log event of such an error.
    """

    def __init__(self, noun: str, event: str) -> None:
        self._noun, self._event = noun, event
        self._task: asyncio.Task[None] | None = None
        self._witnesses = 0

    @abstractmethod
    async def start(self) -> None: ...
    @abstractmethod
    async def stop(self) -> None: ...

    async def wait(self) -> None:
        """Wait until it has ended, by `stop` or by itself.

        Raises:
            Exception: why it ended by itself; a BridgeError, unless it is a mistake of ours.
            Misused: it was never started.
        """
        if self._task is None:
            raise Misused(f"This {self._noun} was never started; await start() first.")
        with self._witnessed():
            await asyncio.wait({self._task})
        self._raise_its_error()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def _refuse_if_running(self) -> None:
        if self._is_running:
            raise Misused(f"This {self._noun} runs already; await stop() before another start().")

    def _launch(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._task = asyncio.create_task(work, name=self._noun)
        self._task.add_done_callback(self._tell_end)
        return self._task

    @contextmanager
    def _witnessed(self) -> Iterator[None]:
        """A block whose caller is told of the error, so that it is not logged."""
        self._witnesses += 1
        try:
            yield
        finally:
            self._witnesses -= 1

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not self._witnesses:
            unforeseen = None if isinstance(error, BridgeError) else error
            log.error(self._event, reason=str(error) or repr(error), exc_info=unforeseen)

    def _raise_its_error(self) -> None:
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
