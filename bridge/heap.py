"""Keeps the garbage collector from what a process has loaded for good. It collects nothing later.

A full collection visits every object there is: with Celery loaded that takes some 40 ms, during
which no thread of the process runs, and under load one is due every second.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Leave what is alive now out of all collections; for a process that has just started.

    In a child it also keeps the memory that it shares with its parent shared.
    """
    gc.freeze()
