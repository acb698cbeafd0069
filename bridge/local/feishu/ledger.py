"""Which events are owed, in flight, or waiting to be pushed again. `now` comes from the caller."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from flybridge.bridge.local.feishu.pushes import CALLBACKS, Attempt, Ending, Push, State

RUNGS = (15.0, 300.0, 3600.0, 21_600.0)
"""Seconds before each re-push. Feishu: 15 s, 5 min, 1 h, 6 h, at most 4 retries."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The re-push schedule on a clock that may run faster than the real one."""

    rungs: tuple[float, ...] = RUNGS
    clock_scale: float = 1.0
    """Seconds of the ladder that pass in one real second."""

    def __post_init__(self) -> None:
        if self.clock_scale <= 0:
            raise ValueError(f"clock_scale is {self.clock_scale}; use a number above 0")

    def wait(self, climbed: int) -> float | None:
        """Real seconds until the next push after `climbed` rungs; None: the ladder is used up."""
        if climbed >= len(self.rungs):
            return None
        return self.rungs[climbed] / self.clock_scale


HISTORY = 100_000
"""Settled events that are remembered."""


@dataclass(slots=True)
class Stats:
    """Counters since the start; `pushed` counts events, the others count attempts."""

    pushed: int = 0
    sent: int = 0
    repushed: int = 0
    acked: int = 0
    nacked: int = 0
    timed_out: int = 0
    cut: int = 0
    unreachable: int = 0
    unexpected_acks: int = 0
    """Late, repeated, or from a connection that was not asked."""
    given_up: int = 0


class Ledger:
    """Every event from its first push until it is acked or the ladder is used up.

    Args:
        ladder: the re-push schedule.
        ack_timeout: seconds from push to ack. Feishu: 3.
        window: attempts in flight at once; further events wait their turn.
    """

    def __init__(self, ladder: Ladder, *, ack_timeout: float = 3.0, window: int = 1000) -> None:
        self.ladder = ladder
        self.ack_timeout = ack_timeout
        self.window = window
        self.stats = Stats()
        self.events: dict[str, Push] = {}
        # The timeout is one for all, so that the oldest attempt is always the next to expire.
        self._in_flight: dict[str, tuple[Push, Attempt]] = {}
        self._waiting: list[tuple[float, int, Push]] = []
        self._order = 0
        self._settled: deque[str] = deque()

    def owe(self, push: Push, now: float) -> Push:
        """Add an event, due at once. A known event id is delivered once more instead."""
        known = self.events.setdefault(push.event_id, push)
        if known is push:
            self.stats.pushed += 1
        elif known.state == "given_up":
            known.state, known.climbed = "owed", 0
            known.settled.clear()
        elif known.due is not None and known.due <= now:
            known.copies += 1
            return known
        self._wait(known, now)
        return known

    def owed(self) -> list[Push]:
        return [push for push in self.events.values() if push.state == "owed"]

    def take_due(self, now: float, limit: int) -> list[Push]:
        """At most `limit` events to push now; report each by `sent` or `unreachable`."""
        due: list[Push] = []
        room = min(limit, self.window - len(self._in_flight))
        while len(due) < room and self._first_due() <= now:
            push = heapq.heappop(self._waiting)[2]
            push.due = None
            due.append(push)
        return due

    def sent(self, push: Push, message_id: str, connection: str, now: float) -> Attempt:
        """Start an attempt whose frames went out on `connection`."""
        self.stats.sent += 1
        self.stats.repushed += bool(push.attempts)
        attempt = Attempt(now, connection, message_id)
        push.attempts.append(attempt)
        self._in_flight[message_id] = (push, attempt)
        return attempt

    def unreachable(self, push: Push, now: float) -> None:
        """Nobody was connected."""
        attempt = Attempt(now, "", "")
        push.attempts.append(attempt)
        self._end(push, attempt, "unreachable", now)

    def answered(self, message_id: str, connection: str, code: int, now: float) -> Attempt | None:
        """End an attempt by an ack; None if that connection was not asked, or answers too late."""
        push, attempt = self._in_flight.get(message_id, (None, None))
        if push is None or attempt is None or attempt.connection != connection:
            self.stats.unexpected_acks += 1
            return None
        del self._in_flight[message_id]
        attempt.code, attempt.answered = code, now
        self._end(push, attempt, "acked" if code == 200 else "nacked", now)
        return attempt

    def expire(self, now: float) -> None:
        """End every attempt that was not answered in time."""
        while self._in_flight:
            message_id, (push, attempt) = next(iter(self._in_flight.items()))
            if attempt.time + self.ack_timeout > now:
                return
            del self._in_flight[message_id]
            self._end(push, attempt, "timed_out", now)

    def lose(self, connection: str, now: float) -> None:
        """End what was in flight on a connection that is gone."""
        gone = [
            k for k, (_, attempt) in self._in_flight.items() if attempt.connection == connection
        ]
        for message_id in gone:
            push, attempt = self._in_flight.pop(message_id)
            self._end(push, attempt, "cut", now)

    def hurry(self, now: float) -> None:
        """Make due what never got an answer, as Feishu does soon after a reconnect.

        The rung that such an event waited on counts as unused.
        """
        for push in self.owed():
            if push.due is not None and push.due > now and push.attempts[-1].code is None:
                push.climbed -= 1
                self._wait(push, now)

    def next_timer(self) -> float | None:
        """When `expire` or `take_due` have something to do again; None: nothing is waited for."""
        timers: list[float] = []
        if self._in_flight:
            oldest = next(iter(self._in_flight.values()))[1]
            timers.append(oldest.time + self.ack_timeout)
        if len(self._in_flight) < self.window and self._first_due() != float("inf"):
            timers.append(self._first_due())
        return min(timers, default=None)

    def _first_due(self) -> float:
        while self._waiting and self._waiting[0][2].due != self._waiting[0][0]:
            heapq.heappop(self._waiting)  # it was hurried since
        return self._waiting[0][0] if self._waiting else float("inf")

    def _wait(self, push: Push, due: float) -> None:
        push.due = due
        self._order += 1
        heapq.heappush(self._waiting, (due, self._order, push))

    def _end(self, push: Push, attempt: Attempt, ending: Ending, now: float) -> None:
        attempt.ending = ending
        setattr(self.stats, ending, getattr(self.stats, ending) + 1)
        if push.state != "owed":
            return
        if ending == "acked":
            self._settle(push, "acked")
        elif push.due is None and not push.in_flight:
            self._climb(push, now)

    def _climb(self, push: Push, now: float) -> None:
        wait = None if push.event_type in CALLBACKS else self.ladder.wait(push.climbed)
        if wait is None:
            self.stats.given_up += 1
            self._settle(push, "given_up")
            return
        push.climbed += 1
        self._wait(push, now + wait)

    def _settle(self, push: Push, state: State) -> None:
        push.state = state
        push.settled.set()
        self._settled.append(push.event_id)
        if len(self._settled) > HISTORY:
            self.events.pop(self._settled.popleft(), None)
