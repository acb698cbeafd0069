"""Renews what is held, and finds what waits elsewhere: for its retry, or with a dead worker.

It does five things by the clock: renew claims, take over entries that nobody renews, fetch retries
that are due, say that this worker is there, and log what stands still.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flybridge.bridge.process.boottime import boottime
from flybridge.workers.group.presence import BEAT_PERIOD
from flybridge.workers.intake.held import place

if TYPE_CHECKING:
    from flybridge.workers.backlog.waiting import Waiting
    from flybridge.workers.claim.claims import Pending
    from flybridge.workers.claim.guard import Guard
    from flybridge.workers.claim.redis_clock import RedisClock
    from flybridge.workers.intake.claimer import Claimer
    from flybridge.workers.intake.consumer import Caps
    from flybridge.workers.intake.held import Held
    from flybridge.workers.intake.outages import Outages
    from flybridge.workers.intake.pending_list import PendingList
    from flybridge.workers.intake.reader import StreamReader

FETCH_DELAY = 0.02
"""Seconds between two looks at least, however many are due."""


@dataclass(frozen=True, slots=True)
class Periods:
    """How often a worker looks, in seconds."""

    due: float = 0.25
    """For retries that are due."""
    take_over: float = 4.0
    """For what nobody renews any more; a third of the event lease where that is less."""
    beat: float = BEAT_PERIOD
    """Between two signs of life."""
    sweep: float = 60.0
    """For consumers whose workers are gone."""


class Keeper:
    """Works in one thread, from `keep` to `close`.

    Args:
        clock: Redis', looked at before anything that goes by it.
        event_lease: seconds; a third of it is the period of renewal.
    """

    def __init__(
        self,
        reader: StreamReader,
        pending: PendingList,
        guard: Guard,
        clock: RedisClock,
        held: Held,
        waiting: Waiting,
        outages: Outages,
        claimer: Claimer,
        event_lease: float,
        periods: Periods = Periods(),
    ) -> None:
        self._reader = reader
        self._pending = pending
        self._guard = guard
        self._clock = clock
        self._held = held
        self._waiting = waiting
        self._outages = outages
        self._claimer = claimer
        self._event_lease = event_lease
        self._periods = periods
        self._early: dict[tuple[str, str], Pending] = {}
        self._fetching = threading.Lock()
        self._calm_at = 0.0
        self._stopping = threading.Event()
        self._closing = threading.Event()

    def keep(self, relieve: Callable[[], None]) -> None:
        """Renew and look for more, until closed.

        Args:
            relieve: called several times a second; what waits in vain for the pool is given back.
        """
        renewed, looked, beaten, swept = 0.0, 0.0, 0.0, boottime()
        while not self._closing.is_set():
            self._held.any_settled.clear()
            more = False
            relieve()
            with self._outages.ride_out("keep"):
                now = boottime()
                if not self._clock.look():
                    # What became idle or free by that jump may still be held: its holder must
                    # renew it first, as we do.
                    renewed, self._calm_at = 0.0, now + self._event_lease / 2
                if now - renewed >= self._event_lease / 3:
                    self._renew()
                    renewed = now
                if now - beaten >= self._periods.beat:
                    self._reader.presence.beat()
                    beaten = now
                if now - looked >= min(self._periods.take_over, self._event_lease / 3):
                    more = self._fetch(self._pending.take_over) or self._pending.unfinished
                    looked = looked if more else now
                more = self.fetch_due() or more
                if now - swept >= self._periods.sweep:
                    swept = now
                    self._reader.sweep()
                    self._reader.stalls.look()
            self._closing.wait(FETCH_DELAY)
            # What there was no room for is taken as soon as there is some.
            (self._held.any_settled if more else self._closing).wait(self._periods.due)

    def stop(self) -> None:
        """Look for no more; what is held is renewed until `close`."""
        self._stopping.set()

    def wait_for_last_look(self, most: float) -> None:
        """Return when what the last look before `stop` found is claimed, or in `most` seconds."""
        if self._fetching.acquire(timeout=most):
            self._fetching.release()

    def close(self) -> None:
        """Have `keep` return."""
        self._stopping.set()
        self._closing.set()
        self._held.any_settled.set()

    def _renew(self) -> None:
        runs, asked = self._held.runs(), boottime()
        if not runs:
            return
        kept = self._guard.renew(runs)
        ours = [run for run, still in zip(runs, kept, strict=True) if still]
        lost = [run for run, still in zip(runs, kept, strict=True) if not still]
        self._held.prolong(ours, asked + self._event_lease)
        self._held.prolong(lost, 0.0)
        self._pending.renew(run.pending for run in ours)

    def fetch_due(self) -> bool:
        """Claim what is due, such as the next of a line; True if there may be more."""
        return self._fetch(self._pending.due)

    def _fetch(self, source: Callable[[int, Caps], list[Pending]]) -> bool:
        """Claim what a source has for us; True if it may have more."""
        with self._fetching:
            if self._stopping.is_set():
                return False
            if boottime() < self._calm_at:
                return False
            room = self._held.room_beside_reads()
            if room <= 0 or not self._reader.streams:
                return True
            found = source(room, self._waiting.caps(self._reader.streams))
            items = self._early | {place(item): item for item in found}
            # A retry may be due before this worker notes that the last attempt is settled.
            self._early = {where: item for where, item in items.items() if item in self._held}
            self._claimer.claim(items.values())
        return bool(found)
