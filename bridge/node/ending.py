"""Logs the error that ends a background task, unless somebody waits for the task and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flybridge.bridge.errors import BridgeError
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)


class Ending:
    """Logs errors that end a background task unseen, over all its starts.

    Args:
        event: the name of the log event.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._witnesses = 0

    @contextmanager
    def witnessed(self) -> Iterator[None]:
        """A block in which the caller is told of the error, so that it is not logged."""
        self._witnesses += 1
        try:
            yield
        finally:
            self._witnesses -= 1

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Log the error that ends this task, unless there are witnesses."""
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not self._witnesses:
            unforeseen = None if isinstance(error, BridgeError) else error
            log.error(self._event, reason=str(error) or repr(error), exc_info=unforeseen)
