"""Runs `flybridge`, or a program that embeds it, with a clock, constants and a signal to turn.

CHAOS_CLOCK: a file of one double, the seconds by which this process' wall clock is wrong; read at
every call, so that it can jump. CHAOS_SCALE=1: waits for which the product has no setting are
shortened, as the whole play is. SIGUSR2: the main thread sleeps for STALL seconds.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path
from types import FrameType

PONG_TIMEOUT = 2.0
MARGIN, GRACE = 0.5, 1.0
PATIENCE = 4.0
RETRY = 1.0
STALL = 3.0


def skew(path: Path) -> None:
    """Have `time.time` and `time.time_ns` be wrong by what stands in the file."""
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    wall, wall_ns = time.time, time.time_ns

    def shift() -> float:
        return float(struct.unpack("d", shared[:8])[0])

    time.time = lambda: wall() + shift()
    time.time_ns = lambda: wall_ns() + int(shift() * 1e9)


def scale() -> None:
    """Shorten what takes tens of seconds."""
    from flybridge.bridge.feishu import backoff
    from flybridge.bridge.protocol import liveness
    from flybridge.workers.routes import routing

    routing.COROUTINE_MARGIN, routing.INTERRUPT_GRACE = MARGIN, GRACE
    liveness.PONG_TIMEOUT = PONG_TIMEOUT
    defaults = (PATIENCE, RETRY, 2 * RETRY, PATIENCE, 2 * RETRY, RETRY)
    backoff.Pace.__init__.__defaults__ = defaults


def stall(number: int, frame: FrameType | None) -> None:
    """Hold the main thread, and with it the event loop."""
    time.sleep(STALL)


def main() -> None:
    if path := os.environ.get("CHAOS_CLOCK"):
        skew(Path(path))
    if os.environ.get("CHAOS_SCALE"):
        scale()
    signal.signal(signal.SIGUSR2, stall)
    program, *arguments = sys.argv[1:]
    if program == "embedding":
        importlib.import_module(program).main(*arguments)
        return
    from flybridge.bridge.cli.main import main as flybridge

    flybridge()


if __name__ == "__main__":
    main()
