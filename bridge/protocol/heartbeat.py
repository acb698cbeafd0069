"""Statistics of pings and pongs, and the ping interval that follows from them.

The statistics go on over all connections; what depends on one connection starts anew with each.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean, pstdev

from flybridge.bridge.config.bounds import LONGEST_HEARTBEAT
from flybridge.handlers.loggers import get_logger

SHORTEST_INTERVAL = 10.0
"""Seconds between two pings in trouble, unless the server's interval is shorter."""
SILENCE_ALARM = 120.0
"""Seconds without a pong or heartbeat on any connection that raise the alarm."""

RECENT = 20
WINDOW = 10
"""Intervals that tell whether the heartbeat is steady."""
UNSTABLE = 5.0
"""Seconds of standard deviation above which it is not."""
ALARMING = 2
"""Missed pings in a row. A single one is routine, as is the end of a connection."""
LATE_ROUND_TRIP = 1.0
"""Seconds below which no round trip counts as late."""

log = get_logger(__name__)


class Rhythm(StrEnum):
    """How the heartbeat goes. Every change is logged once, as `heartbeat.<rhythm>`."""

    STEADY = "steady"
    UNSTABLE = "unstable"
    """Pongs come at intervals that deviate by more than `UNSTABLE` from those of our pings."""
    MISSED = "missed"
    """`ALARMING` pings in a row had no pong."""
    SILENT = "silent"
    """Neither pong nor heartbeat for as long as the alarm allows."""


_HINTS = {
    Rhythm.UNSTABLE: "pongs come irregularly; check the network between this host and Feishu",
    Rhythm.MISSED: "connections open but pings go unanswered; check firewall, NAT and proxy",
    Rhythm.SILENT: "Feishu answers no ping; check proxy and network, and whether Feishu is down",
}


@dataclass(frozen=True, slots=True)
class Beat:
    """One ping that was answered, or one heartbeat of the text dialect."""

    at: int
    """When the pong or the heartbeat came; Unix ms."""
    round_trip: float | None
    """Seconds from the ping to the pong; None for a heartbeat. A pong does not tell whose it is: it
    is taken for that of the last ping, and those before, if any, were missed."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life that came in: a pong, or a heartbeat of the text dialect."""

    interval: float | None
    """Seconds to the next one: our ping interval, or what the heartbeat says; None: it does not
    say."""
    status: str
    """Our own rhythm, or what the heartbeat says."""
    round_trip: float | None = None
    """Seconds; None when no ping waited for it."""
    sent_at: int | None = None
    """When the server says that it sent it; Unix ms. Only in the text dialect."""
    message: str = field(default="", repr=False)
    """The message of the text dialect as it came."""


@dataclass(frozen=True, slots=True)
class HeartbeatStatistics:
    """The heartbeat at one moment. Durations are in seconds; None: not known."""

    total: int
    """Pings that were answered, and heartbeats of the text dialect."""
    missed: int
    """Pings without a pong or heartbeat before the next ping, or before the connection was given
    up."""
    recent: tuple[Beat, ...]
    """The last `RECENT`, the oldest first."""
    last: int | None
    """When the last of them came; Unix ms."""
    ping_interval: float
    """The present ping interval."""
    mean_interval: float | None
    """Of the recent ones, without the gaps between connections."""
    deviation: float | None
    """Standard deviation of the last `WINDOW` intervals: of pongs from those of our pings (our own
    changes are no instability), or of heartbeats; the larger one."""
    round_trip: float | None
    """Of the last pong."""
    mean_round_trip: float | None
    """Of the recent ones."""
    rhythm: Rhythm
    unstable: bool
    silent: bool


class PingInterval:
    """The ping interval: halved after trouble, lengthened by a quarter by each punctual pong.

    Args:
        longest: seconds; never longer, whatever the server says.
    """

    def __init__(self, longest: float = LONGEST_HEARTBEAT) -> None:
        self.longest = longest
        """Seconds; the upper bound on this connection."""
        self._longest = longest
        self._wanted = longest

    @property
    def seconds(self) -> float:
        """The interval now, within its bounds."""
        return min(max(self._wanted, SHORTEST_INTERVAL), self.longest)

    def limit(self, server_interval: float) -> None:
        """Take the server's interval as a further upper bound."""
        self.longest = min(self._longest, server_interval)

    def shorten(self) -> None:
        """A ping was missed, or its pong late."""
        self._wanted = max(self.seconds / 2, min(SHORTEST_INTERVAL, self.longest))

    def lengthen(self) -> None:
        """A pong came in time."""
        self._wanted = min(max(self._wanted, SHORTEST_INTERVAL) * 1.25, self._longest)


@dataclass(slots=True)
class _Reading:
    """State that a gap in reading makes worthless; instants."""

    unanswered: float | None = None
    """The first ping without a pong."""
    ping_before: float | None = None
    """The ping before that."""
    last_ping: float | None = None
    last_pong: float | None = None
    last_heartbeat: float | None = None
    last_beat: float | None = None
    """The later of the two before."""


class Heartbeat:
    """Pings and pongs over many connections, of which one is read at a time.

    Every `now` is in seconds of one clock, the same for all connections. Memory is bounded.

    Args:
        longest: seconds between two pings at most.
        silence: seconds without a pong that raise the alarm.
    """

    def __init__(
        self, *, longest: float = LONGEST_HEARTBEAT, silence: float = SILENCE_ALARM
    ) -> None:
        self.interval = PingInterval(longest)
        self.rhythm = Rhythm.STEADY
        self.total = 0
        self.missed = 0
        self._silence = silence
        self._silent_since: float | None = None  # None: nothing is read, silence proves nothing
        self._silent_for = 0.0  # what earlier connections have added to the silence
        self._missed_in_row = 0
        self._recent: deque[tuple[float, float | None]] = deque(maxlen=RECENT)
        self._intervals: deque[float] = deque(maxlen=RECENT)
        self._deviations: deque[float] = deque(maxlen=WINDOW)
        self._heartbeat_intervals: deque[float] = deque(maxlen=WINDOW)
        self._reading = _Reading()

    def started(self, now: float) -> None:
        """A new connection is read from now on."""
        self._reading = _Reading()
        self._silent_since = now - self._silent_for

    def stopped(self, now: float) -> None:
        """It is not read any more, since it is paused or has ended. May be called twice."""
        if self._silent_since is not None:
            self._silent_for = now - self._silent_since
        self._silent_since = None

    def pinged(self, now: float) -> None:
        """A ping was sent. If an earlier one has no pong yet, that one was missed."""
        if self._silent_since is None:
            return
        reading = self._reading
        if self._is_missed():
            self._miss(now)
        else:
            reading.unanswered, reading.ping_before = now, reading.last_ping
        reading.last_ping = now

    def beaten(self, now: float) -> None:
        """A heartbeat of the text dialect came in, a sign of life as good as a pong."""
        self._broken_silence(now)
        reading, self._missed_in_row = self._reading, 0
        if reading.last_heartbeat is not None:
            self._heartbeat_intervals.append(now - reading.last_heartbeat)
        reading.last_heartbeat = now
        self._count(now, None)
        self._assess(now)

    def ponged(self, now: float) -> Pulse:
        """A pong came in. One that no ping waits for only ends a silence."""
        self._broken_silence(now)
        first, last = self._reading.unanswered, self._reading.last_ping
        if first is not None and last is not None:
            self._answered(now, first, last)
        self._assess(now)
        round_trip = self.round_trip if first is not None else None
        return Pulse(self.interval.seconds, self.rhythm, round_trip)

    def given_up(self, now: float) -> None:
        """The connection counts as dead: the ping that waits for a pong was missed."""
        if self._is_missed():
            self._miss(now)

    def check(self, now: float) -> None:
        """Raise the alarm if `next_check` has passed."""
        if now >= self.next_check():
            self._assess(now)

    def next_check(self) -> float:
        """When the silence becomes alarming; infinity if it is already, or if nothing is read."""
        if self._silent_since is None or self.rhythm is Rhythm.SILENT:
            return float("inf")
        return self._silent_since + self._silence

    @property
    def round_trip(self) -> float | None:
        """Seconds; of the last pong that a ping waited for."""
        return next((trip for _, trip in reversed(tuple(self._recent)) if trip is not None), None)

    @property
    def deviation(self) -> float | None:
        """Seconds; see `HeartbeatStatistics`."""
        pongs, heartbeats = tuple(self._deviations), tuple(self._heartbeat_intervals)
        of_pongs = pstdev(pongs, 0.0) if pongs else None
        of_heartbeats = pstdev(heartbeats) if heartbeats else None
        return max((d for d in (of_pongs, of_heartbeats) if d is not None), default=None)

    def statistics(self, now: float, unix_ms: int) -> HeartbeatStatistics:
        """The statistics now; `now` and `unix_ms` are the same moment by both clocks.

        Safe to call from any thread: it works on copies.
        """
        recent, intervals = tuple(self._recent), tuple(self._intervals)
        deviation = self.deviation
        beats = tuple(
            Beat(unix_ms - round((now - at) * 1000), round_trip) for at, round_trip in recent
        )
        return HeartbeatStatistics(
            total=self.total,
            missed=self.missed,
            recent=beats,
            last=beats[-1].at if beats else None,
            ping_interval=self.interval.seconds,
            mean_interval=fmean(intervals) if intervals else None,
            deviation=deviation,
            round_trip=self.round_trip,
            mean_round_trip=self._mean_round_trip(),
            rhythm=self.rhythm,
            unstable=(deviation or 0.0) > UNSTABLE,
            silent=self.rhythm is Rhythm.SILENT,
        )

    def _broken_silence(self, now: float) -> None:
        self._silent_for = 0.0
        if self._silent_since is not None:
            self._silent_since = now

    def _is_missed(self) -> bool:
        """Whether a ping waits for its pong, and nothing has come since it was sent."""
        first, heartbeat = self._reading.unanswered, self._reading.last_heartbeat
        return first is not None and (heartbeat is None or heartbeat < first)

    def _miss(self, now: float) -> None:
        self.missed += 1
        self._missed_in_row += 1
        self.interval.shorten()
        self._assess(now)

    def _answered(self, now: float, first: float, last: float) -> None:
        """A pong came for the pings sent from `first` to `last`, mostly one and the same."""
        reading, round_trip = self._reading, now - last
        if round_trip > max(LATE_ROUND_TRIP, 2 * (self._mean_round_trip() or round_trip)):
            self.interval.shorten()
        else:
            self.interval.lengthen()
        if reading.last_pong is not None and reading.ping_before is not None:
            self._deviations.append(now - reading.last_pong - (first - reading.ping_before))
        self._count(now, round_trip)
        self._missed_in_row = 0
        reading.unanswered, reading.last_pong = None, now

    def _count(self, now: float, round_trip: float | None) -> None:
        if self._reading.last_beat is not None:
            self._intervals.append(now - self._reading.last_beat)
        self._reading.last_beat = now
        self._recent.append((now, round_trip))
        self.total += 1

    def _mean_round_trip(self) -> float | None:
        trips = [trip for _, trip in tuple(self._recent) if trip is not None]
        return fmean(trips) if trips else None

    def _assess(self, now: float) -> None:
        rhythm = self._rhythm(now)
        if rhythm is self.rhythm:
            return
        self.rhythm = rhythm
        fields = {
            "missed": self._missed_in_row,
            "deviation": round(self.deviation or 0.0, 1),
            "ping_interval": self.interval.seconds,
        }
        if rhythm is Rhythm.STEADY:
            log.info("heartbeat.steady", **fields)
        else:
            log.warning(f"heartbeat.{rhythm}", **fields, hint=_HINTS[rhythm])

    def _rhythm(self, now: float) -> Rhythm:
        """The worst rhythm that applies."""
        if self._silent_since is not None and now >= self._silent_since + self._silence:
            return Rhythm.SILENT
        if self._missed_in_row >= ALARMING:
            return Rhythm.MISSED
        if (self.deviation or 0.0) > UNSTABLE:
            return Rhythm.UNSTABLE
        return Rhythm.STEADY
