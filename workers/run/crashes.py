"""Decides what becomes of attempts that ended without an outcome."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from flybridge.workers.claim.outcomes import Failure, Outcome

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run

CRASH_BACKOFF = 1.0
CRASH_BACKOFF_MAX = 60.0
"""Seconds; an attempt whose process died is tried again after 1, 2, 4, ... of them."""

CRASHED = 60.0
"""Seconds that a run without an outcome counts for in `Bundles`."""


def crashed(run: Run, max_attempts: int, error: str, *, alone: bool = True) -> Outcome:
    """What becomes of an attempt that ended without an outcome: tried again later, or given up.

    Args:
        alone: no other event was in the same request. Otherwise one of those may be guilty, so this
            one gets another attempt, alone (see `quarantine.is_suspect`).
    """
    if alone and run.attempt >= max_attempts:
        return Outcome(failed=(Failure("", "crash_loop", error),))
    return Outcome(retry_after=crash_delay(run.attempt), error=error, crashed=True)


def crash_delay(attempt: int) -> float:
    """Seconds until the next attempt after one whose process died."""
    longest: float = min(CRASH_BACKOFF_MAX, CRASH_BACKOFF * 2.0 ** min(attempt - 1, 64))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing


def overdue(seconds: float) -> str:
    """The error of an attempt that the pool has stopped."""
    return f"TimeLimitExceeded: no outcome within {seconds:g} s"
