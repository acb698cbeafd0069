"""The intake: from the streams to the pool and back, in four threads of the worker's main process.

One reads and claims, one does so where order matters, one settles what ended, one keeps what is
held: renews it, takes over what a dead worker left, brings back retries that are due. They are
threads so that neither a slow handler nor a slow Redis can stop the renewal. What runs a claimed
event is `handover.py`'s; the intake knows no Celery.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bridge.boottime import boottime
from handlers.loggers import get_logger
from workers.claims import Busy, Claim, Duplicate, Pending, Run, Settlement
from workers.guard import Guard
from workers.held import Held
from workers.keeper import Keeper
from workers.outages import Outages
from workers.outcomes import Outcome
from workers.settler import CUT_SHORT, Settler

if TYPE_CHECKING:
    from workers.pending_list import PendingList
    from workers.reader import StreamReader
    from workers.redis_clock import RedisClock
    from workers.spans import IntakeSpans
    from workers.unhandled import Unhandled
    from workers.waiting import Waiting

log = get_logger("workers.intake")

BLOCK = 1.0
"""Seconds one read waits for entries; also how long a new event type may go unnoticed.

Less than the client waits for a reply."""

PAUSED_BLOCK = 0.02
"""Seconds of the same while a stream is left alone, for a limit or a full batch: it may have room
again soon."""


class Intake:
    """Holds what this worker has claimed, from the read to the settlement.

    Args:
        reader: gives what is new.
        pending: gives what was delivered before; used by all of the threads, as `reader` is.
        guard: claims and settles.
        clock: Redis'.
        streams: gives the streams to read; called every second.
        event_lease: seconds; a third of it is the period of renewal.
        waiting: where claimed events wait; the owner of the pool takes them out.
        wake: called from any thread when some have come.
        spans: of this worker.
        died: called when a thread ends by a mistake of ours; the worker is no use without it.
        disconnect: closes the connections to Redis that nobody is using.
        unhandled: decides about events that this worker has no handler for.
        relieve: called several times a second: what waits in vain for the pool may be given back.
    """

    def __init__(
        self,
        reader: StreamReader,
        pending: PendingList,
        guard: Guard,
        clock: RedisClock,
        streams: Callable[[], Iterable[str]],
        event_lease: float,
        waiting: Waiting,
        wake: Callable[[], None],
        spans: IntakeSpans,
        died: Callable[[], None],
        disconnect: Callable[[], None],
        unhandled: Unhandled,
        relieve: Callable[[], None] = lambda: None,
    ) -> None:
        self._reader = reader
        self._pending = pending
        self._guard = guard
        self._streams = streams
        self._event_lease = event_lease
        self._waiting = waiting
        self._wake = wake
        self._spans = spans
        self._died = died
        self._unhandled = unhandled
        complete = threading.Event()
        self._held = Held(waiting)
        self._outages = Outages(reader, disconnect, complete)
        self._keeper = Keeper(
            reader,
            pending,
            guard,
            clock,
            self._held,
            waiting,
            self._outages,
            event_lease,
            self._accept,
            relieve,
        )
        self._settler = Settler(
            guard,
            self._held,
            self._outages,
            spans,
            self._wake_for_suspects,
            self._keeper.next_in_line,
            complete,
        )
        self._stopping = threading.Event()
        self._abandoned = False
        self._threads: list[threading.Thread] = []
        self._counting = threading.Lock()
        self.duplicates = 0
        self.unhandled = 0
        """Events that became dead letters because no worker of the group has a handler."""
        self.skipped = 0
        """Handlers that had succeeded under another event id."""

    @property
    def slots(self) -> int:
        """Of the pool: events that it runs at once."""
        return self._held.slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._held.slots = slots

    @property
    def paused(self) -> bool:
        """Nothing more is claimed for now; may be set from any thread."""
        return self._held.paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._held.paused = paused
        self._held.stop_waiting()

    @property
    def held(self) -> int:
        """Entries read and not yet settled."""
        return len(self._held)

    @property
    def unsettled(self) -> int:
        """Attempts that ended, of which Redis does not know yet."""
        return self._settler.unsettled

    @property
    def spans_lost(self) -> int:
        """Spans that never came to the collector."""
        return self._spans.lost

    @property
    def stalled(self) -> int:
        """Lines and business keys that this worker has seen stand still of late."""
        return self._reader.stalled

    @property
    def settled(self) -> int:
        """Attempts settled since the start."""
        return self._settler.settled

    def ours(self, run: Run) -> bool:
        """Whether the claim is ours for sure: what another may have taken over must not start."""
        return self._held.ours(run)

    def start(self, begun: Callable[[], None] = lambda: None) -> None:
        """Start the threads; further calls do nothing.

        Args:
            begun: called once by a thread, when the group knows what this worker handles.
        """
        if self._threads:
            return
        loops = (
            ("read", partial(self._read, begun)),
            ("order", self._read_ordered),
            ("settle", self._settler.settle),
            ("keep", self._keeper.keep),
        )
        self._threads = [
            threading.Thread(target=self._alive, args=loop, name=f"flybridge-{loop[0]}")
            for loop in loops
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def give_back(self, runs: Iterable[Run], after: float = 0.0) -> None:
        """Leave events whose handlers never started to any worker, in so many seconds."""
        returned = Outcome(retry_after=after)
        self._settler.add([Settlement(run, returned, returned=True) for run in runs])

    def end(self, run: Run, outcome: Outcome) -> None:
        """An attempt has ended; callable from any thread."""
        self._settler.add([Settlement(run, outcome, returned=outcome.returned)])

    def stop(self) -> None:
        """Read no more, and give back what nobody has started."""
        self._stopping.set()
        self._keeper.stop()
        self._held.stop_waiting()
        self.give_back(self._waiting.drain())
        for thread in self._threads[:2]:
            thread.join(BLOCK + 5)
        self._keeper.wait_for_last_look(BLOCK)
        # What the last read brought, and the last look for others.
        self.give_back(self._waiting.drain())

    def close(self) -> None:
        """Settle what ended, and leave the groups; attempts cut off are for retry soon."""
        if not self._threads:
            return
        self._stopping.set()
        self._keeper.close()
        read, order, settle, keep = self._threads
        # First those that claim, then who settles what they claimed.
        for thread in (keep, order, read):
            thread.join(5)
        self.give_back(self._waiting.drain())
        self._settler.close()
        settle.join(5)
        self._leave()
        self._spans.close()

    def abandon(self, most: float) -> None:
        """Give back all that has not ended, begun or not: the process ends at once after this.

        Args:
            most: seconds for it.
        """
        if not self._threads:
            return
        self._abandoned = True
        self._stopping.set()
        self._keeper.close()
        self._held.stop_waiting()
        self._settler.close(CUT_SHORT)
        self._threads[2].join(most)
        self._leave()

    def _leave(self) -> None:
        # Twice, for a connection that was idle for long may be cut, unseen until it is used.
        for _ in range(2):
            with self._outages.ride_out("leave"):
                self._reader.leave()
                return

    def _alive(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            # Redis' failures never come here. A worker that lives on half dead would be worse.
            log.exception("intake.died", thread=name, hint="the worker ends; restart it")
            self._died()

    def _read(self, begun: Callable[[], None]) -> None:
        followed = 0.0
        while not self._stopping.is_set():
            room = self._held.wait_for_room(BLOCK)
            if not room or self._stopping.is_set():
                continue
            with self._outages.ride_out("read"):
                if not self._reader.streams or time.monotonic() - followed > BLOCK:
                    self._reader.follow(self._streams())
                    if not followed:
                        begun()
                    followed = time.monotonic()
                if self._outages.in_doubt.is_set():
                    self._outages.in_doubt.clear()
                    self._pending.doubt()
                if lost := self._pending.own(room):
                    self._accept(lost)
                else:
                    self._read_once(room)

    def _read_once(self, room: int) -> None:
        streams = self._reader.unordered
        caps = self._waiting.caps(streams)
        paused = sum(most == 0 for most in caps.values())
        if paused == len(streams):
            # Or none is known: Celery's consumer says after its start which queues it reads.
            self._stopping.wait(PAUSED_BLOCK / 2)
        self._accept(self._reader.read(room, PAUSED_BLOCK if paused else BLOCK, caps))

    def _read_ordered(self) -> None:
        while not self._stopping.is_set():
            room = self._held.wait_for_room(BLOCK)
            if not room or self._stopping.is_set():
                continue
            with self._outages.ride_out("order"):
                caps = self._waiting.caps(self._reader.ordered)
                found = self._reader.read_ordered(room, caps)
                self._accept(found)
                block = PAUSED_BLOCK if 0 in caps.values() else BLOCK
                if not (found or self._reader.listen(block, caps)):
                    self._stopping.wait(PAUSED_BLOCK)

    def _accept(self, items: Iterable[Pending]) -> None:
        new = [item for item in items if item not in self._held]
        if not new or self._abandoned:
            return
        # Before the claims: what is claimed and not decided about would be held without end.
        ends = self._unhandled.outcomes(item.entry.event_type for item in new)
        started, asked = time.time_ns(), boottime()
        claims = self._guard.claim(new)
        runs = [claim for claim in claims if isinstance(claim, Run)]
        self._spans.claimed(runs, started, time.time_ns())
        self._note_skipped(runs)
        self._held.add(runs, asked + self._event_lease)
        self._waiting.add(self._handled(runs, ends))
        self._wake()
        self._set_aside(claims)

    def _handled(self, runs: Sequence[Run], ends: Mapping[str, Outcome]) -> Sequence[Run]:
        """Those that this worker has handlers for; the others end here."""
        if not ends:
            return runs
        ended = [(run, ends.get(run.pending.entry.event_type)) for run in runs]
        self.unhandled += sum(end is not None and not end.returned for _, end in ended)
        self._settler.add(
            [Settlement(run, end, returned=end.returned) for run, end in ended if end]
        )
        return [run for run, end in ended if not end]

    def _note_skipped(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.skipped:
                with self._counting:
                    self.skipped += run.skipped
                log.debug(
                    "handler.skipped",
                    event_id=run.pending.entry.event_id,
                    count=run.skipped,
                    reason="it has succeeded for the business key of this event",
                )

    def _set_aside(self, claims: Iterable[Claim]) -> None:
        duplicates = [claim.pending for claim in claims if isinstance(claim, Duplicate)]
        if duplicates:
            with self._counting:
                self.duplicates += len(duplicates)
            self._pending.acknowledge(duplicates)
            log.debug("event.duplicate", count=len(duplicates))
            if any(each.line for each in duplicates):
                self._settler.lines_moved()
        for claim in claims:
            if isinstance(claim, Busy):
                self._pending.postpone(claim.pending, claim.left)

    def _wake_for_suspects(self) -> None:
        # Who waits for an empty pool waits for the settlement of what ran beside it.
        suspects = self._waiting.suspects
        if suspects.reserved or suspects.waiting:
            self._wake()
