"""The intake: takes events from the streams to the dispatcher and settles them, in four threads.

One thread reads and claims, one does so where order matters, one settles what ended. One keeps what
is held: it renews the claims, takes over what a dead worker left, and fetches retries that are due.
They are threads of the main process so that neither a slow handler nor a slow Redis can stop the
renewal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flybridge.handlers.loggers import get_logger
from flybridge.workers.intake.settler import CUT_SHORT

if TYPE_CHECKING:
    from flybridge.workers.backlog.waiting import Waiting
    from flybridge.workers.intake.claimer import Claimer
    from flybridge.workers.intake.held import Held
    from flybridge.workers.intake.keeper import Keeper
    from flybridge.workers.intake.outages import Outages
    from flybridge.workers.intake.pending_list import PendingList
    from flybridge.workers.intake.reader import StreamReader
    from flybridge.workers.intake.selection import Selection
    from flybridge.workers.intake.settler import Settler

log = get_logger(__name__)

BLOCK = 1.0
"""Seconds one read waits for entries; also how long a new event type may go unnoticed.

Less than the client waits for a reply."""

PAUSED_BLOCK = 0.02
"""Seconds one read waits while a stream is left alone, for a limit or a full batch: it may have
room again soon.
"""


class Intake:
    """Runs the four threads of one worker, from `start` to `close`.

    Args:
        selection: selects the streams to read; asked every second.
        died: called when a thread ends by a bug; the worker is useless without it.
    """

    def __init__(
        self,
        selection: Selection,
        reader: StreamReader,
        pending: PendingList,
        claimer: Claimer,
        waiting: Waiting,
        held: Held,
        keeper: Keeper,
        settler: Settler,
        outages: Outages,
        died: Callable[[], None],
    ) -> None:
        self._selection = selection
        self._reader = reader
        self._pending = pending
        self._claimer = claimer
        self._waiting = waiting
        self._held = held
        self._keeper = keeper
        self._settler = settler
        self._outages = outages
        self._died = died
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        """By the name of their loop; empty before `start`."""

    def start(self, begun: Callable[[], None], relieve: Callable[[], None]) -> None:
        """Start the threads; further calls do nothing.

        Args:
            begun: called once by a thread, when the group knows what this worker handles.
            relieve: see `Keeper.keep`.
        """
        if self._threads:
            return
        loops: dict[str, Callable[[], None]] = {
            "read": lambda: self._read(begun),
            "order": self._read_ordered,
            "settle": self._settle,
            "keep": lambda: self._keeper.keep(relieve),
        }
        self._threads = {
            name: threading.Thread(
                target=self._alive, args=(name, work), name=f"flybridge-{name}", daemon=True
            )
            for name, work in loops.items()
        }
        for thread in self._threads.values():
            thread.start()

    def stop(self) -> None:
        """Read no more, and give back what nobody has started."""
        self._stopping.set()
        self._keeper.stop()
        self._held.stop_waiting()
        self._settler.give_back(self._waiting.drain())
        self._join("read", "order", most=BLOCK + 5)
        self._keeper.wait_for_last_look(BLOCK)
        # What the last read brought, and the last look for others.
        self._settler.give_back(self._waiting.drain())

    def close(self) -> None:
        """Settle what ended, and leave the groups; attempts cut off are for retry soon."""
        if not self._threads:
            return
        self._stopping.set()
        self._keeper.close()
        # First those that claim, then who settles what they claimed.
        self._join("keep", "order", "read", most=5)
        self._settler.give_back(self._waiting.drain())
        self._settler.close()
        self._join("settle", most=5)
        self._leave()

    def abandon(self, most: float) -> None:
        """Give back all that has not ended, begun or not: the process ends at once after this.

        Args:
            most: seconds that this may take.
        """
        if not self._threads:
            return
        self._claimer.is_closed = True
        self._stopping.set()
        self._keeper.close()
        self._held.stop_waiting()
        self._settler.close(CUT_SHORT)
        self._join("settle", most=most)
        self._leave()

    def _join(self, *names: str, most: float) -> None:
        """Wait for the end of these threads, `most` seconds for each."""
        for name in names:
            if name in self._threads:
                self._threads[name].join(most)

    def _leave(self) -> None:
        # Twice, for an idle connection may have been cut, which shows only when it is used.
        for _ in range(2):
            with self._outages.ride_out("leave"):
                self._reader.leave()
                return

    def _alive(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            # Redis' failures never come here. A worker without one of its threads would be worse.
            log.exception(
                "intake.died", thread=name, hint="a bug of Flybridge; the worker ends: restart it"
            )
            self._died()

    def _read(self, begun: Callable[[], None]) -> None:
        followed = 0.0
        while not self._stopping.is_set():
            room = self._held.wait_for_room(BLOCK)
            if not room or self._stopping.is_set():
                continue
            with self._outages.ride_out("read"):
                if not self._reader.streams or time.monotonic() - followed > BLOCK:
                    self._reader.follow(self._selection.streams())
                    if not followed:
                        begun()
                    followed = time.monotonic()
                if self._outages.in_doubt.is_set():
                    self._outages.in_doubt.clear()
                    self._pending.doubt()
                if lost := self._pending.own(room):
                    self._claimer.claim(lost)
                else:
                    self._read_once(room)

    def _read_once(self, room: int) -> None:
        streams = self._reader.unordered
        caps = self._waiting.caps(streams)
        paused = sum(most == 0 for most in caps.values())
        if paused == len(streams):
            # Or none is known: Celery's consumer says after its start which queues it reads.
            self._stopping.wait(PAUSED_BLOCK / 2)
        self._claimer.claim(self._reader.read(room, PAUSED_BLOCK if paused else BLOCK, caps))

    def _read_ordered(self) -> None:
        while not self._stopping.is_set():
            room = self._held.wait_for_room(BLOCK)
            if not room or self._stopping.is_set():
                continue
            with self._outages.ride_out("order"):
                caps = self._waiting.caps(self._reader.ordered)
                found = self._reader.read_ordered(room, caps)
                self._claimer.claim(found)
                block = PAUSED_BLOCK if 0 in caps.values() else BLOCK
                if not (found or self._reader.listen(block, caps)):
                    self._stopping.wait(PAUSED_BLOCK)

    def _settle(self) -> None:
        while not self._settler.is_complete:
            if self._settler.settle_next():
                with self._outages.ride_out("line"):
                    self._keeper.fetch_due()
        self._settler.settle_held()
