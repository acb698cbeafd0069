"""The file into which handlers and peer tasks write what they saw, read by the benchmark."""

from __future__ import annotations

import os
import time

_file = open(os.environ.get("BENCH_NOTES", os.devnull), "a", buffering=1)  # noqa: SIM115
_noted: list[float] = []


def note(value: float) -> None:
    """Append one line; it goes out in one write, so lines of several processes stay whole."""
    _file.write(f"{value!r}\n")


def note_first() -> None:
    """Note the time, once a process."""
    if not _noted:
        _noted.append(time.time())
        note(_noted[0])
