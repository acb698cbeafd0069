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
    """The event is not known to be in Redis, or not as durably as it should be.

    Attributes:
        reason: `fenced`: this process no longer leads; `redis`: an error until the budget was
            spent; `timeout`: no answer until then, or no turn; `full`: Redis has no room, and was
            perhaps not even asked; `overload`: too much waits already; `capacity`: more waits than
            the settings allow; `undurable`: it is in Redis' memory, but not yet on disk or on the
            replicas; `letters_full`: the bridge keeps as many dead letters as it may.
    """

    reason: Refusal


Done = Callable[[Published | PublishRefused], None]
