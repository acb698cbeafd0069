"""Riding out Redis' failures: each is told once and outlived by asking again, after a pause.

It repeats nothing by itself: every loop of the intake asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from workers.reader import StreamReader

log = structlog.get_logger("workers.intake")

PAUSE = 0.25
"""Seconds after a failure."""


class Outages:
    """The failures that the threads of one intake have met, and not seen the end of.

    Args:
        reader: makes groups anew that Redis has lost.
        disconnect: closes the connections to Redis that nobody is using.
        complete: ends the pauses, for nothing remains to be asked but the last settlements.
    """

    def __init__(
        self, reader: StreamReader, disconnect: Callable[[], None], complete: threading.Event
    ) -> None:
        self._reader = reader
        self._disconnect = disconnect
        self._complete = complete
        self._troubled: dict[str, str] = {}
        self.in_doubt = threading.Event()
        """An answer was lost, and has left entries with us that nothing will give again."""

    @contextmanager
    def ride_out(self, doing: str) -> Iterator[None]:
        """Log a failure of Redis, once, and go on.

        Args:
            doing: what was asked; its next success ends the trouble.
        """
        try:
            yield
        except ResponseError as error:
            self._unwell("redis.refused", doing, error)
            if "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
                with self.ride_out(doing):
                    self._reader.forget_groups()
        except (RedisError, OSError) as error:
            self._unwell("redis.lost", doing, error)
        else:
            if self._troubled.pop(doing, None) and not self._troubled:
                log.info("redis.recovered")

    def _unwell(self, event: str, doing: str, error: Exception) -> None:
        self.in_doubt.set()
        reason = str(error) or type(error).__name__
        if isinstance(error, RedisTimeoutError):
            # Their way may be gone for all connections alike, and each would time out by itself.
            self._disconnect()
        if not self._troubled:
            log.warning(event, doing=doing, error=reason)
        self._troubled[doing] = reason
        # Not the intake's stop: while the last handlers end, settling must not ask without a pause.
        self._complete.wait(PAUSE)
