"""Decides when, and whether, to connect to Feishu again: delays, and how many attempts may fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from flybridge.bridge.config.bounds import LONGEST_DELAY
from flybridge.bridge.errors import ConnectionOver

FIRST = 1.0
"""Seconds; upper bound of the first delay. The SDKs wait up to 30 s, a needless gap at each routine
close."""


_OFF = (
    "FLYBRIDGE_AUTO_RECONNECT is false, so there is no other attempt; start the bridge again, or "
    "set it to true"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Durations on the way to Feishu, in seconds."""

    patience: float = 60.0
    """How long a leader may have no connection before it lets another host try."""
    busy_retry: float = 30.0
    """Until Feishu is asked again after a refusal that may pass, or by a standby after a network
    failure."""
    refused_retry: float = 300.0
    """Until Feishu is asked again after a refusal of the configuration."""
    steady: float = 10.0
    """A connection that lived so long was a success: backoff and failures start anew."""
    check: float = 300.0
    """Between two checks of a standby whether Feishu still accepts it."""
    look: float = 5.0
    """Between two checks whether a refused bridge has got another secret."""


class Backoff:
    """Random delays between attempts to connect, from 0 to a bound that doubles with each failure.

    Args:
        first: seconds; upper bound of the first delay.
    """

    def __init__(
        self, chance: Callable[[], float] = random.random, *, first: float = FIRST
    ) -> None:
        self.cap = LONGEST_DELAY
        self._chance = chance
        self._first = self._bound = min(first, LONGEST_DELAY)

    def next(self) -> float:
        """Seconds to wait before the next attempt; `cap` at most."""
        bound = min(self._bound, self.cap)
        self._bound = min(self._bound * 2, LONGEST_DELAY)
        return self._chance() * bound

    def reset(self) -> None:
        self._bound = self._first

    def limit(self, interval: float) -> None:
        """Cap delays at the server's ReconnectInterval, but not below `first`."""
        self.cap = min(max(interval, self._first), LONGEST_DELAY)


class Attempts:
    """Decides whether to connect again after an end or a failure.

    Args:
        auto_reconnect: False: one connection, and no attempt after a failed one.
        most: failed attempts in a row, over all leaderships, after which there is no other; 0: no
            limit.
    """

    def __init__(self, *, auto_reconnect: bool = True, most: int = 0) -> None:
        self.failures = 0
        """Attempts that failed, ever."""
        self._failed = 0
        self._auto_reconnect = auto_reconnect
        self._most = most

    def succeeded(self) -> None:
        """A connection has lasted: forget the failures before it."""
        self._failed = 0

    def ended(self, reason: str, *, brief: bool) -> None:
        """A connection has ended against our will.

        Args:
            brief: it ended so soon that it counts as a failed attempt.

        Raises:
            ConnectionOver: the settings allow no further attempt.
        """
        if not self._auto_reconnect:
            raise ConnectionOver(f"The connection to Feishu has ended ({reason}); {_OFF}")
        if brief:
            self._count(f"a connection that ended at once ({reason})")

    def fail(self, error: Exception) -> None:
        """An attempt failed.

        Raises:
            ConnectionOver: the settings allow no further attempt.
        """
        if not self._auto_reconnect:
            raise ConnectionOver(f"No connection to Feishu ({error}); {_OFF}") from error
        self._count(str(error), error)

    def _count(self, what: str, cause: Exception | None = None) -> None:
        self.failures += 1
        self._failed += 1
        if 0 < self._most <= self._failed:
            raise ConnectionOver(
                f"{self._failed} attempts to connect to Feishu failed in a row, the last with: "
                f"{what}; start the bridge again when that is put right, or allow more by "
                "FLYBRIDGE_MAX_RECONNECT_ATTEMPTS (0: without end)"
            ) from cause
