"""Handles SIGTERM and SIGINT: the first asks the process to stop, the second ends it within 2 s.

A thread receives the signals, so that they are heard at once even while the main thread is blocked
by a handler or in C code. It lives as long as the process, which may hang in its last steps, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""SIGQUIT counts as a second one."""

SAME_SIGNAL = 0.5
"""Seconds in which two signals count as one: a terminal's ^C reaches the whole process group, and a
parent passes it on."""

LEFT_TO_END = 1.0
"""Seconds after a second signal in which running work may still end."""

LEFT_TO_GIVE_BACK = 0.6
"""Seconds after those to give back what has not ended."""

EXIT_HURRIED = 1
"""A second signal ended the process before it had finished."""


class Watch:
    """Watches the signals from now on; made in the main thread, once per process.

    Args:
        stop: asks the program to stop; called from a thread.
        waits_for: what the program has to wait for then, as fields of the log line.
        hurry: called from a thread at a second signal.
        give_back: called from a thread when something still runs soon after that; the process ends
            when it returns.
    """

    def __init__(
        self,
        stop: Callable[[], object],
        *,
        waits_for: Callable[[], Mapping[str, Any]] = dict,
        hurry: Callable[[], object] = lambda: None,
        give_back: Callable[[], object] = lambda: None,
    ) -> None:
        self._stop = stop
        self._waits_for = waits_for
        self._hurry = hurry
        self._give_back = give_back
        self._first: float | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = {each: signal.signal(each, lambda *_: None) for each in WATCHED}
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget)
        threading.Thread(target=self._watch, name="flybridge-signals", daemon=True).start()

    def close(self) -> None:
        """Restore the former signal handlers, for a program that goes on."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._write)

    def _watch(self) -> None:
        while heard := os.read(self._read, 64):
            for number in heard:
                if number in WATCHED:
                    self._hear(signal.Signals(number))
        os.close(self._read)

    def _hear(self, received: signal.Signals) -> None:
        now = time.monotonic()
        if self._first is None and received != signal.SIGQUIT:
            self._first = now
            hint = "a second signal ends it within 2 s"
            log.info("process.stopping", signal=received.name, **self._waits_for(), hint=hint)
            self._stop()
        elif self._first is None or now - self._first > SAME_SIGNAL:
            self._end(received)

    def _end(self, received: signal.Signals) -> None:
        log.warning("process.hurried", signal=received.name, **self._waits_for())
        if self._first is None:
            self._stop()
        self._hurry()
        time.sleep(LEFT_TO_END)
        last = threading.Thread(target=self._give_back, name="flybridge-last", daemon=True)
        last.start()
        last.join(LEFT_TO_GIVE_BACK)
        os._exit(EXIT_HURRIED)


def stop_on_signals(stop: Callable[[], object], **options: Any) -> Watch:
    """Let the running loop call `stop` at the first signal.

    Args:
        options: those of `Watch`.
    """
    loop = asyncio.get_running_loop()

    def ask() -> None:
        # The loop is closed when the program is about to end anyway.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop)

    return Watch(ask, **options)


def _forget() -> None:
    """Ignore the parent's signals in a child process."""
    signal.set_wakeup_fd(-1)
