"""When to ping, and when silence means a dead connection.

No SDK of Feishu notices a missing pong, so their connections stay half-open for days. Two limits:
20 s from a ping to any frame, and 2.5 ping intervals without one. Any frame counts as life.
"""

from __future__ import annotations

from dataclasses import dataclass

PONG_TIMEOUT = 20.0
"""Seconds from a ping to any frame. In field reports 3 s are too short, and 10 to 30 s work."""

IDLE_INTERVALS = 2.5
"""Ping intervals without any frame, whatever the pings say."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The connection must be dropped."""

    reason: str


class Liveness:
    """The deadlines of one connection; the first ping is due at once. Seconds of one clock."""

    def __init__(self, now: float, *, pong_timeout: float) -> None:
        self.last_frame = now
        """When anything last came in, or the connection was made."""
        self.next_ping = now
        self._last_ping: float | None = None
        self._pong_timeout = pong_timeout
        self._paused = False
        self._silent_since: float | None = None

    def received(self, now: float) -> None:
        """Something came in."""
        self.last_frame = now
        self._silent_since = None

    def pinged(self, now: float, interval: float) -> None:
        """A ping was sent. Of several unanswered ones the first sets the limit."""
        self._last_ping, self.next_ping = now, now + interval
        if self._silent_since is None:
            self._silent_since = now

    def pace(self, interval: float) -> None:
        """Change the interval, for the next ping already."""
        if self._last_ping is not None:
            self.next_ping = self._last_ping + interval

    def pause(self) -> None:
        """We stop reading for good, so silence proves nothing. Pings go on."""
        self._paused = True

    def deadline(self, interval: float) -> float:
        """When the connection is dead unless something comes in; infinity once paused."""
        if self._paused:
            return float("inf")
        # With very short intervals the idle limit must not be stricter than that of the pong.
        idle = self.last_frame + max(IDLE_INTERVALS * interval, self._pong_timeout)
        return min(idle, self._pong_deadline())

    def dead(self, now: float) -> Dead:
        """The reason, once `deadline` has passed."""
        if now >= self._pong_deadline():
            return Dead(f"no frame within {self._pong_timeout:g} s after ping")
        return Dead(f"no frame for {now - self.last_frame:.0f} s")

    def _pong_deadline(self) -> float:
        if self._silent_since is None:
            return float("inf")
        return self._silent_since + self._pong_timeout
