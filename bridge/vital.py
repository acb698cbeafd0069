"""Tasks without which a bridge is none: when one ends by a mistake, the bridge has to end as well.

It ends nothing itself. A task that died unseen is worse than a process that ends: nobody trims or
publishes any more, and a supervisor of processes has nothing to restart.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bridge.errors import TaskFailed
from handlers.loggers import get_logger

log = get_logger("bridge.vital")


class Vital:
    """Watches tasks from their start; a cancelled one, or one that returns, is no mistake."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self._error: TaskFailed | None = None

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Log an exception that ends this task, and set `failed`."""
        task.add_done_callback(self._ended)

    def check(self) -> None:
        """Do nothing as long as all is well.

        Raises:
            TaskFailed: a task has ended by an exception; the first one is its cause.
        """
        if self._error is not None:
            raise self._error

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        name = task.get_name()
        log.critical("task.failed", task=name, exc_info=error, cure="the bridge ends; report this")
        if self._error is None:
            self._error = TaskFailed(
                f"The task {name} ended by {type(error).__name__}, a mistake of Flybridge; the log "
                "has its traceback. Report it, and restart the bridge."
            )
            self._error.__cause__ = error
        self.failed.set()
