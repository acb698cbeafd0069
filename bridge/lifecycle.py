"""What can happen to a bridge's connection, for subscribers. Every `at` is in Unix ms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from flybridge.bridge.leadership.election import LossReason

__all__ = [
    "Connected",
    "Disconnected",
    "Errored",
    "HeartbeatReceived",
    "Leading",
    "MessageReceived",
    "SteppedDown",
]


@dataclass(frozen=True, slots=True)
class Connected:
    """The leader has an open connection to Feishu."""

    device_id: str
    """Feishu's name for this connection."""
    at: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection has ended. Every half hour or so this is routine, and a new one follows."""

    code: int
    """The WebSocket close code; 1006 if it ended without a close frame."""
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A complete message came in. An event is not in Redis yet, and may be a repetition.

    Of Feishu's frames only pushes are told; of the text dialect every message.
    """

    kind: str
    """`event` or `card`; of the text dialect `event`, `ping`, `pong`, `heartbeat` or `auth`."""
    payload: bytes = field(repr=False)
    """The envelope as it came, whether it can be read or not; else the message itself."""
    message_id: str
    """Of this push, not of the event: a repetition may have another. May be empty."""
    at: int


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """A pong came in, or a `heartbeat` of the text dialect."""

    at: int
    interval: float | None
    """Seconds between two heartbeats: our ping interval, or what a `heartbeat` of the text dialect
    says; None when it does not say."""
    status: str
    """A `Rhythm`, or what a `heartbeat` of the text dialect says."""
    round_trip: float | None
    """Seconds from our ping to this pong; None when no ping waited for it."""
    sent_at: int | None = None
    """When the server sent it, Unix ms; None in Feishu's pongs, which do not say."""
    message: str = field(default="", repr=False)
    """The message of the text dialect as it came; empty for Feishu's pongs."""


@dataclass(frozen=True, slots=True)
class Errored:
    """An attempt to connect failed, or publishing (once per outage), or the bridge has ended.

    A mistake of a subscriber is only logged.
    """

    error: Exception
    at: int


@dataclass(frozen=True, slots=True)
class Leading:
    """This bridge holds the lease and connects from now on."""

    term: int


@dataclass(frozen=True, slots=True)
class SteppedDown:
    """This bridge no longer holds the lease; its socket is closed."""

    term: int
    reason: LossReason
    """`released`: it released the lease itself; for the others see `Lost`."""


Happening = (
    Connected | Disconnected | MessageReceived | HeartbeatReceived | Errored | Leading | SteppedDown
)

KINDS: tuple[type[Happening], ...] = get_args(Happening)
