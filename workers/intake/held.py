"""The claims that a worker holds: until when each is surely its own, and room for how many more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flybridge.bridge.process.boottime import boottime
from flybridge.workers.backlog.window import Window

if TYPE_CHECKING:
    from flybridge.workers.backlog.waiting import Waiting
    from flybridge.workers.claim.claims import Pending, Run


PAUSE_CHECK_PERIOD = 0.1
"""Seconds between looks whether a pause is over, at most."""

GATHER_DELAY = 0.01
"""Seconds, at most, that a free slot waits for others, so that one read fills them all."""


@dataclass(slots=True)
class _Claim:
    run: Run
    until: float
    """Seconds of `boottime` until which it is ours for sure."""


class Held:
    """The claims of one worker; callable from any thread."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._window = Window(time.monotonic())
        self._claims: dict[str, _Claim] = {}
        self._places: set[tuple[str, str]] = set()
        self._room = threading.Condition()
        self.any_settled = threading.Event()
        """Set whenever there may be room again; cleared by who waits for it."""
        self._paused = False
        self.slots = 1
        """Of the pool: events that it runs at once."""

    @property
    def paused(self) -> bool:
        """Whether nothing more is to be claimed for now."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self.stop_waiting()

    def __len__(self) -> int:
        return len(self._claims)

    def __contains__(self, item: Pending) -> bool:
        return place(item) in self._places

    def runs(self) -> list[Run]:
        """All of them, the oldest first."""
        return [each.run for each in list(self._claims.values())]

    def ours(self, run: Run) -> bool:
        """Whether the claim is surely ours: an event that another may have taken over must not
        start.

        Our lease is counted from before each call, so it ends before Redis' does, however late the
        answer came.
        """
        claim = self._claims.get(run.token)
        return claim is not None and boottime() < claim.until

    def add(self, runs: Iterable[Run], until: float) -> None:
        """Note claims that were made just now."""
        for run in runs:
            self._claims[run.token] = _Claim(run, until)
            self._places.add(place(run.pending))

    def prolong(self, runs: Iterable[Run], until: float) -> None:
        """Note that the claims hold until then; 0 for claims that were lost."""
        for run in runs:
            if claim := self._claims.get(run.token):
                claim.until = until

    def remove(self, runs: Sequence[Run]) -> None:
        """Forget settled claims; whoever waits for room may go on."""
        for run in runs:
            self._claims.pop(run.token, None)
            self._places.discard(place(run.pending))
        self._window.settled(len(runs), time.monotonic())
        self.any_settled.set()
        self.stop_waiting()

    def wait_for_room(self, most: float) -> int:
        """How many entries a read may bring; 0 if there is no room within `most` seconds."""
        with self._room:
            if self.paused:
                self._room.wait(min(most, PAUSE_CHECK_PERIOD))
                return 0
            size, held = self._window.size(self.slots), self._in_the_way
            # Half a window at a time: small reads would cost a round trip each.
            if size - held >= max(1, size // 2):
                return size - held
            # But no slot stays idle for that, except for a moment in which more of them end.
            starved = held < self.slots
            self._room.wait(min(most, GATHER_DELAY) if starved else most)
            return max(0, size - self._in_the_way) if starved else 0

    def stop_waiting(self) -> None:
        """Have `wait_for_room` return now."""
        with self._room:
            self._room.notify_all()

    def room_beside_reads(self) -> int:
        """How many entries may come otherwise than by a read, as retries do."""
        if self.paused:
            return 0
        size = self._window.size(self.slots)
        # Half a window more than reads fill; else a backlog would leave nothing for retries.
        return size + (size + 1) // 2 - self._in_the_way

    @property
    def _in_the_way(self) -> int:
        """Events that count against the window."""
        return len(self._claims) - self._waiting.uncounted


def place(item: Pending) -> tuple[str, str]:
    """What identifies an entry."""
    return item.stream, item.entry_id
