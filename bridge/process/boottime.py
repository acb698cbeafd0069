"""A monotonic clock that runs on while the machine is suspended, as Redis' clock does.

Leases of the app and of events are measured by it: a process that wakes up sees at once that its
leases have run out.
"""

from __future__ import annotations

import time

_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def boottime() -> float:
    """Seconds; those of `time.monotonic` on systems without this clock."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
