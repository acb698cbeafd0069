"""Ends a leader's process when its event loop is stuck.

Such a leader renews nothing and closes nothing, and its socket goes on stealing events. A thread
watches the loop. A pause of the whole process (SIGSTOP, a sleeping laptop) does not count: the
thread stands still as well, and the loop steps down by itself afterwards.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable

from flybridge.bridge.errors import EXIT_LEASE
from flybridge.handlers.loggers import get_logger

LAST_WORDS = 1.0
"""Seconds for the last log line: what blocks the loop may block the log's pipe, too."""

log = get_logger(__name__)


class Stall:
    """How long the loop has been stuck, as seen by a thread that looks every `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._ticks = -1
        self._stuck = 0.0

    def observe(self, ticks: int, elapsed: float) -> float:
        """Seconds stuck, given the loop's count of ticks and the time since the last look.

        A late look counts as two intervals, since the thread was paused as well.
        """
        moved, self._ticks = ticks != self._ticks, ticks
        self._stuck = 0.0 if moved else self._stuck + min(elapsed, 2 * self._interval)
        return self._stuck


class Watchdog:
    """Watches the running loop from `start` to `stop`.

    Args:
        limit: seconds that the loop may be stuck; the lease's duration.
        guarded: whether a stuck loop does harm now, i.e. whether this process leads.
    """

    def __init__(
        self,
        limit: float,
        guarded: Callable[[], bool],
        *,
        end: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lag = 0.0
        """Seconds by which the loop's last tick was late."""
        self._limit = limit
        self._interval = min(0.5, limit / 10)
        self._guarded = guarded
        self._end = end
        self._clock = clock
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin; call it on the loop."""
        self._schedule(asyncio.get_running_loop())
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End; call it on the loop."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._timer = loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._ticks += 1
        self.lag = loop.time() - due
        self._schedule(loop)

    def _watch(self) -> None:
        stall = Stall(self._interval)
        before = self._clock()
        while not self._stopped.wait(self._interval):
            now = self._clock()
            stuck = stall.observe(self._ticks, now - before)
            before = now
            if stuck > self._limit and self._guarded():
                self._bite(stuck)
                return

    def _bite(self, stuck: float) -> None:
        words = threading.Thread(target=_last_words, args=(stuck,), daemon=True)
        words.start()
        words.join(LAST_WORDS)
        self._end(EXIT_LEASE)


def _last_words(stuck: float) -> None:
    log.critical("loop.stuck", seconds=round(stuck, 1), cure="see the stacks; the process ends now")
    faulthandler.dump_traceback(all_threads=True)
    logging.shutdown()
