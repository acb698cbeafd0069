"""The base class of handlers, and the context that they get with each event."""

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
    """What a handler is told about one attempt, besides the event."""

    attempt: int
    """Number of the attempt, 1 for the first."""
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
"""A handler as a callable; a batch handler takes a sequence of events and a `BatchContext`."""


class Handler:
    """Handles the events of the types that it is registered for; subclass it and write `handle`.

    One instance per process handles all events, several at once in thread and asyncio pools: do not
    keep the state of one event in `self`.
    """

    event_types: ClassVar[str | tuple[str, ...]] = ()
    """Event types or patterns, for a registration that names none."""
    queue: ClassVar[str | None] = None
    """Celery queue; None for the domain of the event type: `im`, `contact`, …"""
    max_attempts: ClassVar[int] = 5
    """Attempts before the event becomes a dead letter, the first included."""
    timeout: ClassVar[float] = 30.0
    """Seconds per attempt. After that an `async def` is cancelled; a `def` should watch
    `context.remaining()`. The worker waits for a handler that does not stop, or kills its process;
    a success that comes late still counts."""
    backoff: ClassVar[float] = 1.0
    """Seconds before the second attempt; the wait doubles with each further attempt."""
    backoff_max: ClassVar[float] = 600.0
    """The longest wait in seconds; only `Retry(after=...)` may ask for a longer one."""
    max_age: ClassVar[float | None] = None
    """Seconds after the event's creation, or its replay, after which no attempt is started."""
    rate_limit: ClassVar[str | float | None] = None
    """Events started per event type and worker: "10/s", "100/m", "5/h", or a number per second."""
    concurrency: ClassVar[int | None] = None
    """Events that run at once, per event type and worker."""
    batch: ClassVar[Batch | None] = None
    """Makes the handler take a list of events instead of a single one."""
    ordered_by: ClassVar[str | None] = None
    """Path of the ordering key, e.g. `body.message.chat_id`. Events of one key run one at a time,
    in the order of their stream, across all workers; a failing event holds up its key until it
    succeeds or is given up. A key is a text or a whole number; events without one, and events above
    1 MiB, run in any order."""
    dedup_by: ClassVar[str | None] = None
    """Path of the business key, e.g. `body.message.message_id`. The handler succeeds once per key,
    even when Feishu pushes the same thing under several event ids. A key is remembered as long as a
    done mark: 24 hours, or an hour longer than the retention."""

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        """Handle one event; write it as `handle(self, event: Event, context: Context)`.

        It may be `def` or `async def`, and succeeds when it returns. With `batch` it is
        `handle(self, events: Sequence[Event], context: BatchContext)` and returns None, or a list
        with an exception in the place of each event that failed.

        Raises:
            Retry: run again later.
            Reject: give up now.
            Exception: anything else is a failed attempt, retried with backoff.
        """
        raise NotImplementedError
