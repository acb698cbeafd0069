"""The strategy that users write, and what it is given besides the event. Nothing runs here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from structlog.typing import FilteringBoundLogger

from flybridge.handlers.batch import Batch
from flybridge.handlers.event import Event
from flybridge.handlers.loggers import get_logger

__all__ = ["Context", "Handler"]


@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances of one attempt."""

    attempt: int
    """1 for the first."""
    max_attempts: int
    deadline: float
    """`time.monotonic()` at which the attempt should have ended."""
    event_id: str
    event_type: str
    handler: str
    """Name of the registration that runs."""

    @property
    def logger(self) -> FilteringBoundLogger:
        """A structlog logger bound to event id and type, handler and attempt."""
        return get_logger("flybridge.handlers").bind(
            event_id=self.event_id,
            event_type=self.event_type,
            handler=self.handler,
            attempt=self.attempt,
        )

    def remaining(self) -> float:
        """Seconds until the deadline, 0 once it has passed."""
        return max(0.0, self.deadline - time.monotonic())


Run = Callable[[Event, Context], Any]
"""A handler as it is called; one of batches takes a sequence of events and a `BatchContext`."""


class Handler:
    """Handles the events of the types it is registered for; subclass it and write `handle`.

    One instance per process serves all events, several at once in thread and asyncio pools: keep
    the state of one event out of `self`.
    """

    event_types: ClassVar[str | tuple[str, ...]] = ()
    """What it is registered for when the registration names no types."""
    queue: ClassVar[str | None] = None
    """Celery queue; None for the domain of the event's type: `im`, `contact`, …"""
    max_attempts: ClassVar[int] = 5
    """Attempts before the event is given up, the first included."""
    timeout: ClassVar[float] = 30.0
    """Seconds per attempt. Then an `async def` is cancelled; a `def` should watch `remaining()`.
    What goes on is waited for, or killed with its process; a success that comes late is kept."""
    backoff: ClassVar[float] = 1.0
    """Seconds before the second attempt; doubles with each one after."""
    backoff_max: ClassVar[float] = 600.0
    """Seconds that no wait exceeds, unless `Retry(after=...)` names a longer one."""
    max_age: ClassVar[float | None] = None
    """Seconds after the event's creation, or its replay, beyond which no attempt is begun."""
    rate_limit: ClassVar[str | float | None] = None
    """Events begun per event type and worker: "10/s", "100/m", "5/h", or a number a second."""
    concurrency: ClassVar[int | None] = None
    """Events in work at once, per event type and worker."""
    batch: ClassVar[Batch | None] = None
    """Take lists of events instead of one."""
    ordered_by: ClassVar[str | None] = None
    """Where the key stands, e.g. `body.message.chat_id`, whose events come one at a time and in the
    order of their stream, across all workers: whoever fails holds up its key until it succeeds or
    is given up. Text or a whole number; events without one, or above 1 MiB, come in any order."""
    dedup_by: ClassVar[str | None] = None
    """Where a key stands, e.g. `body.message.message_id`, for which the handler succeeds once, even
    when Feishu pushes the same thing under another event id. It is remembered as long as a done
    mark: 24 hours, or an hour longer than the retention."""

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        """Write it as `handle(self, event: Event, context: Context)`, `def` or `async def`.

        Returning means success. With `batch` it is `handle(self, events: Sequence[Event], context:
        BatchContext)`, and what it returns is None, or a list with an exception in the place of
        each event that failed.

        Raises:
            Retry: run again later.
            Reject: give up now.
            Exception: anything else is a failed attempt, retried with backoff.
        """
        raise NotImplementedError
