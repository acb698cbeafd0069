"""The results of publishing an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Refusal = Literal[
    "fenced", "redis", "timeout", "full", "overload", "capacity", "undurable", "letters_full"
]
"""See `PublishRefused`."""


@dataclass(frozen=True, slots=True)
class Published:
    """The event is in Redis; `duplicate` when an earlier delivery had brought it there."""

    entry_id: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class PublishRefused:
    """The event may not be in Redis, or is not as durable as it should be.

    Attributes:
        reason: `fenced`: this process does not lead any more; `redis`: an error until the budget
            was spent; `timeout`: no answer, or no turn, within the budget; `full`: Redis has no
            room; `overload`: too many bytes wait; `capacity`: more events wait than the settings
            allow; `undurable`: in Redis' memory, but not on disk or on the replicas in time;
            `letters_full`: the bridge keeps as many dead letters as it may.
    """

    reason: Refusal


Done = Callable[[Published | PublishRefused], None]
