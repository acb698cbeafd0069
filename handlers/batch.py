"""What a handler that takes several events at a time declares, and what it is given beside them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from flybridge.handlers.loggers import get_logger

__all__ = ["Batch", "BatchContext"]

LARGEST = 1000
"""Events in a batch at most; all of them wait for the slowest, and run again after a crash."""

LONGEST_WAIT = 10.0
"""Seconds that an event may wait for others although a worker could have run it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`batch = Batch(size=100, wait=0.05)`: the handler gets a list of events.

    A batch is handed over when it is full, or when its first event has waited for `wait`.
    """

    size: int
    """Events at most, 2 or more."""
    wait: float = 0.05
    """Seconds; what waits longer goes in a smaller batch."""


@dataclass(frozen=True, slots=True)
class BatchContext:
    """The circumstances of one call with several events."""

    attempts: tuple[int, ...]
    """Of each event, in their order; 1 for the first."""
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
