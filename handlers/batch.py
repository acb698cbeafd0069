"""Options and context of batch handlers, which take several events in one call."""

from __future__ import annotations

import time
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from flybridge.handlers.loggers import get_logger

__all__ = ["Batch", "BatchContext"]

MAX_SIZE = 1000
"""The largest batch. All of its events wait for the slowest, and run again after a crash."""

MAX_WAIT = 10.0
"""The longest time in seconds that an event may wait for its batch to fill."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Makes a handler take lists of events: `batch = Batch(size=100, wait=0.05)`.

    The handler is called when the batch is full, or when its first event has waited for `wait`.
    """

    size: int
    """The most events in a batch, 2 or more."""
    wait: float = 0.05
    """Seconds that the first event waits for others; then the batch starts as it is."""


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What a batch handler is told about one call, besides the events."""

    attempts: tuple[int, ...]
    """Number of the attempt of each event, in the order of the events; 1 for the first."""
    max_attempts: int
    deadline: float
    """`time.monotonic()` at which the call should have ended."""
    handler: str
    """Name of the registration that runs."""

    @property
    def logger(self) -> FilteringBoundLogger:
        """A structlog logger bound to the handler and the number of events."""
        log = get_logger("flybridge.handlers")
        return log.bind(handler=self.handler, events=len(self.attempts))

    def remaining(self) -> float:
        """Seconds until the deadline, 0 once it has passed."""
        return max(0.0, self.deadline - time.monotonic())
