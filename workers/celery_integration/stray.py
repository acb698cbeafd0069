"""Rejects and logs messages of Celery's broker that this worker cannot use.

Events do not come by messages; users' own Celery tasks do. A line names the message and says why,
and never holds its body.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.exceptions import NotRegistered
from celery.utils.objects import Bunch
from celery.worker.consumer import Consumer
from redis.exceptions import RedisError

from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

LINES_PER_PERIOD = 10
"""Log lines in a period, at most."""

LOG_PERIOD = 60.0
"""Seconds."""

NAME_LENGTH = 200
"""Characters of a name that a stranger chose."""


class Refusals:
    """Logs messages that are rejected, up to `LINES_PER_PERIOD` in a period.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = -LOG_PERIOD
        self._told = self._untold = 0

    def tell(self, error: object, queue: str, message: Any = None) -> None:
        """Log that a message is rejected.

        Args:
            queue: where it came from.
        """
        now = self._clock()
        if now - self._since >= LOG_PERIOD:
            self._since, self._told = now, 0
        if self._told == LINES_PER_PERIOD:
            self._untold += 1
            return
        self._told += 1
        reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        facts = _facts(message) if message is not None else {}
        if self._untold:
            facts["untold"], self._untold = self._untold, 0
        log.error("message.rejected", queue=queue, reason=reason[:NAME_LENGTH], **facts)


refusals = Refusals()


class Unread:
    """Warns of messages in lists that a worker without tasks of the user's does not read.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, int] = {}
        self._told_at = 0.0

    def look(self, task_consumer: Any) -> None:
        """Count the lists; other lists are logged at once, other numbers once a period.

        Args:
            task_consumer: kombu's, None while there is none; that of `memory://` has no lists.
        """
        count = getattr(getattr(task_consumer, "channel", None), "unread", None)
        if count is None:
            return
        try:
            found = count([queue.name for queue in task_consumer.queues])
        except (RedisError, OSError):
            # Celery notices, and says so.
            return
        now = self._clock()
        if found == self._told or (
            found.keys() == self._told.keys() and now - self._told_at < LOG_PERIOD
        ):
            return
        self._told, self._told_at = found, now
        if found:
            log.warning(
                "messages.unread",
                queues=" ".join(sorted(found)),
                count=sum(found.values()),
                hint="this worker has no Celery tasks of yours, and events do not come by messages;"
                " `celery -A flybridge.workers.app purge -Q QUEUE` removes them",
            )


class TaskConsumer(Consumer):
    """Celery's consumer, but without the bodies of messages in the log."""

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """It names no task."""
        self._reject(message, "it names no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """It names a task that is not here; its caller gets a failure as the result."""
        name = str(exc.args[0]) if exc.args else ""
        self._reject(message, "no such task in this worker; name its module in FLYBRIDGE_HANDLERS")
        properties = message.properties
        caller = Bunch(
            name=name, chord=None, root_id=None, errbacks=None,
            correlation_id=properties.get("correlation_id"), reply_to=properties.get("reply_to"),
        )  # fmt: skip
        task_id = message.headers.get("id")
        self.app.backend.mark_as_failure(task_id, NotRegistered(name), request=caller)
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """The task does not take it."""
        self._reject(message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """It cannot be read."""
        self._reject(message, exc)

    def _reject(self, message: Any, reason: object) -> None:
        refusals.tell(reason, queue_of(message), message)
        message.reject_log_error(log, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=None)


def queue_of(message: Any) -> str:
    """The queue that a message came from, as far as it says so."""
    info = message.delivery_info
    return str(info.get("routing_key", ""))[:NAME_LENGTH] if isinstance(info, dict) else ""


def _facts(message: Any) -> dict[str, Any]:
    headers = message.headers if isinstance(message.headers, dict) else {}
    return {
        "task": str(headers.get("task", ""))[:NAME_LENGTH],
        "id": str(headers.get("id", ""))[:NAME_LENGTH],
        "content_type": str(message.content_type)[:NAME_LENGTH],
        "bytes": len(message.body) if isinstance(message.body, bytes | str) else None,
    }
