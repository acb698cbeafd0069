"""SIGTERM and SIGINT: they ask a program to stop, and it is the program that stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog

log = structlog.get_logger("bridge.signals")


def stop_on_signals(stop: Callable[[], object]) -> None:
    """Have SIGTERM and SIGINT call `stop`, until the running loop is closed.

    A second signal changes nothing: a terminal's ^C reaches the whole process group, and a parent
    passes it on once more; dying of that would leave the lease to run out.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stopping, number, stop)


def _stopping(received: signal.Signals, stop: Callable[[], object]) -> None:
    log.info("process.stopping", signal=received.name)
    stop()
