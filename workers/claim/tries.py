"""The attempts that each handler of an event has made, and when it is to be called again.

An event with one handler needs none of this: its own attempts and its own retry are the handler's.
Those of several handlers are kept apart, so that none is called before its time, and none uses up
the attempts of another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

_KEPT = re.compile(r"(\d{1,9}):(\d{1,15}):(\d{1,15}):(\d{1,9})")


class Try(Struct, frozen=True, gc=False):
    """A handler that wants to be called again."""

    made: int
    """Attempts so far."""
    due: float
    """Monotonic seconds, on this host, before which it is not to be called."""


NO_TRIES: Mapping[str, Try] = {}


def read(kept: str, redis_ms: int, crashes: int, here: float) -> Try | None:
    """What `settle.lua` has kept of a handler; None if somebody has edited it.

    Args:
        kept: attempts, when it is due in Redis' Unix ms, ms it was to wait, crashes by then.
        redis_ms: Redis' Unix ms now.
    """
    match = _KEPT.fullmatch(kept)
    if match is None:
        return None
    made, due, wait, before = map(int, match.groups())
    # Longer than it was to wait: noted while Redis' clock was ahead.
    left = min(max(0, due - redis_ms), wait) / 1000
    return Try(made + max(0, crashes - before), here + left)


def attempt_of(tries: Mapping[str, Try], attempt: int, crashes: int, here: float) -> int:
    """The highest number of an attempt that a handler is about to make."""
    if not tries:
        return attempt
    numbers = (each.made + 1 for each in tries.values() if each.due <= here)
    return max((crashes + 1, *numbers))


def ended(marks: Mapping[str, str], tries: Mapping[str, Try]) -> dict[str, Try]:
    """Without those on whom the last word is said."""
    return {handler: each for handler, each in tries.items() if handler not in marks}
