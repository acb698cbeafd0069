"""Exempts what a process has loaded from garbage collection.

A full collection visits every object: with Celery loaded that takes some 40 ms, during which no
thread of the process runs, and under load one is due every second.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Exempt what is alive now from all later collections; call it right after the start.

    Further calls do nothing, in child processes neither, since there would be garbage among it.
    """
    if not gc.get_freeze_count():
        gc.freeze()
