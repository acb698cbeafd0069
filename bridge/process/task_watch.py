"""Starts a bridge's background tasks, and notices when one fails; the bridge then ends.

A task that dies unnoticed would be worse: trimming or publishing would stop, and nothing would
restart the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from flybridge.bridge.errors import TaskFailed
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)


class TaskWatch:
    """The background tasks of one bridge. One that is cancelled, or returns, has not failed."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        """Set when a task has ended by an exception, which is in the log then."""
        self._error: TaskFailed | None = None

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` in a task of this name."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def check(self) -> None:
        """Raise what has failed first, if anything has.

        Raises:
            TaskFailed: its cause is the task's exception.
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
