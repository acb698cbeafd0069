"""The clock for everything that runs out in Redis meanwhile: leases of the app and of events.

Like `time.monotonic`, it is never put back or forward; unlike that, it goes on while the machine
is suspended, as Redis' clock does. Who wakes up knows at once that its leases have run out.
"""

from __future__ import annotations

import time

_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def boottime() -> float:
    """Seconds since some moment in the past; of `time.monotonic` where there is no such clock."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
