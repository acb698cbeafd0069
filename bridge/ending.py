"""Logs the error that ends a background task, unless somebody waits for the task and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge.errors import BridgeError
from handlers.loggers import get_logger

log = get_logger("bridge.ending")


class Ending:
    """Of one thing, over all its starts.

    Args:
        event: the log line when an error ends it unseen.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._witnesses = 0

    @contextmanager
    def witnessed(self) -> Iterator[None]:
        """In this block somebody will be told if an error ends it."""
        self._witnesses += 1
        try:
            yield
        finally:
            self._witnesses -= 1

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Log what ends this task, unless there are witnesses."""
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not self._witnesses:
            unforeseen = None if isinstance(error, BridgeError) else error
            log.error(self._event, reason=str(error) or repr(error), exc_info=unforeseen)
