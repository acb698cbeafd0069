"""Detects that Redis refuses events, says why, and finds out when it takes them again.

An outage begins with an entry that Redis did not take within its budget, for any reason but a lack
of memory. This entry is sent again every `TRIAL_PERIOD` seconds, and at once when another entry was
taken; the outage ends when it is taken. So it ends by itself even if no event comes, but not while
Redis takes some entries and refuses others. The entry may then be in Redis without an ack; when
Feishu sends it again, it is a duplicate.

The lease is kept: a standby has the same Redis and, as a rule, the same rights.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from redis.exceptions import OutOfMemoryError, RedisError

from flybridge.bridge.errors import ErrorListener
from flybridge.bridge.process.task_watch import TaskWatch
from flybridge.bridge.publishing.durability import Undurable
from flybridge.bridge.publishing.publish_connection import (
    REPLY_TIMEOUT,
    PublishConnection,
    QueuedEntry,
    is_fenced,
)
from flybridge.bridge.store.redis_rights import cure, is_denied
from flybridge.handlers.loggers import get_logger

TRIAL_PERIOD = 1.0
"""Seconds between two trials."""

log = get_logger(__name__)


class Leadership(Protocol):
    """Whether this process may publish."""

    def leads(self) -> bool: ...
    def fenced(self, term: int) -> None: ...


class Outage:
    """Detects an outage of one publisher, and ends it.

    Args:
        connection: of its own; it is connected only while an outage lasts.
        leadership: asked before each trial; an outage ends with it.
        listener: told of the error with which an outage begins.
    """

    def __init__(
        self,
        connection: PublishConnection,
        leadership: Leadership,
        tasks: TaskWatch,
        listener: ErrorListener,
    ) -> None:
        self.trouble = ""
        """Why entries are refused; empty while publishing works, as far as is known."""
        self._connection, self._leadership = connection, leadership
        self._tasks, self._listener = tasks, listener
        self._failing = False
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def failed(self, error: RedisError) -> None:
        """A batch failed: log and tell the first such error."""
        if not self._failing:
            self._failing = True
            log.warning("publish.failed", error=str(error), cure=self.cure(error))
            self._listener.errored(error)

    def refused(self, entry: QueuedEntry) -> None:
        """This entry was not taken within its budget."""
        if self.trouble:
            return
        self.trouble = self._explain(entry.error)
        trying = self._try(QueuedEntry(entry.command, lambda result: None, 0.0))
        self._task = self._tasks.start(trying, "publish-trial")

    def succeeded(self) -> None:
        """A batch was taken. If an entry was refused before, try that one at once."""
        if self.trouble:
            self._hurry.set()
        elif self._failing:
            self._failing = False
            log.info("publish.recovered")

    async def close(self) -> None:
        """End the trials."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._connection.close()

    def cure(self, error: RedisError) -> str:
        """What to do about an error of Redis."""
        if isinstance(error, Undurable):
            return "see whether the replicas, or Redis' disk, keep up"
        if is_denied(error):
            return cure(error, self._connection.scripts)
        return "see whether Redis is well"

    def _explain(self, error: RedisError) -> str:
        return f"{error}; {self.cure(error)}"

    async def _try(self, entry: QueuedEntry) -> None:
        try:
            while await self._pause():
                self._connection.batch = [entry]
                (answer,) = await self._connection.send(REPLY_TIMEOUT)
                # The next one is to find new rights, scripts and servers.
                await self._connection.close()
                if not isinstance(answer, RedisError):
                    self.trouble = ""
                    if not is_fenced(answer):
                        self.succeeded()
                    return
                if isinstance(answer, OutOfMemoryError):
                    return
                self.trouble = self._explain(answer)
        finally:
            self.trouble, self._task = "", None

    async def _pause(self) -> bool:
        """Wait `TRIAL_PERIOD` seconds, or less when urgent; returns whether to try again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TRIAL_PERIOD):
                await self._hurry.wait()
        self._hurry.clear()
        return self._leadership.leads()
