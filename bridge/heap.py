"""Exempts what a process has loaded from garbage collection.

A full collection visits every object: with Celery loaded that takes some 40 ms, during which no
thread of the process runs, and under load one is due every second.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Leave what is alive now out of all collections; for a process that has just started.

    Further calls do nothing, in its children neither: later there would be garbage among it.
    """
    if not gc.get_freeze_count():
        gc.freeze()
