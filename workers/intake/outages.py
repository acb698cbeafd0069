"""Rides out Redis' failures: logs each outage and its end once, and pauses before the next attempt.

The loops of the intake ask again by themselves.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flybridge.bridge.store.redis_rights import cure, is_denied
from flybridge.bridge.store.spoilt_keys import Denials
from flybridge.handlers.loggers import get_logger

if TYPE_CHECKING:
    from flybridge.workers.intake.reader import StreamReader

log = get_logger(__name__)

PAUSE_AFTER_FAILURE = 0.25
"""Seconds after a failure."""

FAILURE_COUNTS_FOR = 30.0
"""Seconds after its failure that the end of an outage waits for somebody's success; longer than a
call takes. Whoever asks nothing more would keep the outage up for ever."""

CALM_PAUSES = 4
"""Pauses without a failure before an outage is over: a server that fails now and then is in one."""


class Health:
    """Whether Redis is well, as several threads meet it: when an outage begins and when it is over.

    One outage is all failures, of whichever thread, until nothing has failed for a while and
    everyone who failed has succeeded since. Callable from any thread.

    Args:
        calm: seconds without a failure before an outage is over.
    """

    def __init__(self, calm: float) -> None:
        self._calm = calm
        self._lock = threading.Lock()
        self._failing: dict[str, float] = {}
        self._failed_at = -math.inf
        self._well_since = -math.inf
        self._is_out = False

    def failed(self, doing: str, asked: float, now: float) -> bool:
        """A call failed; True if this begins an outage.

        Args:
            doing: who asked.
            asked: when the call was begun. What was asked before the end of an outage belongs to
                it: a half-open connection is noticed by its users one after the other.
            now: of the same clock, in seconds.
        """
        with self._lock:
            self._failing[doing] = self._failed_at = now
            if self._is_out or asked < self._well_since:
                return False
            self._is_out = True
            return True

    def succeeded(self, doing: str, now: float) -> bool:
        """A call succeeded; True if this ends an outage."""
        with self._lock:
            self._failing.pop(doing, None)
            if not self._is_out or now - self._failed_at < self._calm:
                return False
            if any(now - failed < FAILURE_COUNTS_FOR for failed in self._failing.values()):
                return False
            self._failing.clear()
            self._is_out = False
            self._well_since = now
            return True


class Outages:
    """Logs the outages that the threads of one intake meet: each once, and its end once.

    Args:
        reader: makes groups anew that Redis has lost, and leaves out streams that are none.
        disconnect: closes the connections to Redis that nobody is using.
        complete: ends the pauses, for nothing remains to be asked but the last settlements.
        pause: seconds after a failure.
    """

    def __init__(
        self,
        reader: StreamReader,
        disconnect: Callable[[], None],
        complete: threading.Event,
        pause: float = PAUSE_AFTER_FAILURE,
    ) -> None:
        self._reader = reader
        self._disconnect = disconnect
        self._complete = complete
        self._pause = pause
        self._denials = Denials()
        self._health = Health(CALM_PAUSES * pause)
        self.in_doubt = threading.Event()
        """An answer was lost, and has left entries with us that nothing will give again."""

    @contextmanager
    def ride_out(self, doing: str) -> Iterator[None]:
        """Go on after a failure of Redis; log it unless it belongs to an outage that was told.

        Args:
            doing: who asks; the end of an outage waits for the next success of each that failed.
        """
        asked = time.monotonic()
        try:
            yield
        except (RedisError, OSError) as error:
            self._unwell(doing, asked, error)
            if _lacks_groups(error):
                self._make_groups_anew(doing)
        else:
            if self._health.succeeded(doing, time.monotonic()):
                log.info("redis.recovered")

    def _make_groups_anew(self, doing: str) -> None:
        """Try it once; if it fails, the next failure of who asks brings it about again."""
        asked = time.monotonic()
        try:
            self._reader.make_groups_again()
        except (RedisError, OSError) as error:
            self._unwell(doing, asked, error)

    def _unwell(self, doing: str, asked: float, error: Exception) -> None:
        self.in_doubt.set()
        begins = self._health.failed(doing, asked, time.monotonic())
        if is_denied(error):
            # Also in an outage that has begun with the lack of another right.
            if self._denials.is_news(error):
                log.warning("redis.refused", doing=doing, error=str(error), cure=cure(error))
        elif begins:
            event = "redis.refused" if isinstance(error, ResponseError) else "redis.lost"
            log.warning(event, doing=doing, error=str(error) or type(error).__name__)
        if isinstance(error, RedisTimeoutError):
            # Their way may be gone for all connections alike, and each would time out by itself.
            self._disconnect()
        # Not the intake's stop: while the last handlers end, settling must not ask without a pause.
        self._complete.wait(self._pause)


def _lacks_groups(error: Exception) -> bool:
    # A stream that is none any more must not be read with the others.
    codes = ("NOGROUP", "UNBLOCKED", "WRONGTYPE")
    return isinstance(error, ResponseError) and any(code in str(error) for code in codes)
