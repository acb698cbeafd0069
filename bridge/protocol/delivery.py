"""What an incoming frame becomes: a delivery, a rejected frame, or only a count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flybridge.bridge.protocol import frames


class FrameOutcome(StrEnum):
    """What became of an incoming frame."""

    EVENT = "event"
    """Delivered, the last piece of a set included."""
    CARD = "card"
    """Delivered. Feishu: the legacy callback channel, not meant for long connections."""
    FRAGMENT = "fragment"
    """Kept until its set is complete."""
    PONG = "pong"
    PING = "ping"
    """Ignored. Feishu: no SDK answers a ping of the server. Of the text dialect: answered."""
    HEARTBEAT = "heartbeat"
    """A sign of life of the text dialect."""
    AUTH = "auth"
    """Of the text dialect: the server accepts our token."""
    CONTROL_UNKNOWN = "control_unknown"
    """Ignored."""
    TEXT = "text"
    """Ignored: a WebSocket text message, which Feishu never sends, without the text dialect."""
    INVALID = "invalid"
    """Rejected: no frame; of text: no message."""
    METHOD_UNKNOWN = "method_unknown"
    """Rejected: neither control nor data."""
    TYPE_UNKNOWN = "type_unknown"
    """Rejected: data that is neither event nor card."""
    SUM_INVALID = "sum_invalid"
    """Rejected: `sum` is no number, or above 256."""
    SEQ_INVALID = "seq_invalid"
    """Rejected: `seq` is no number, or not below `sum`."""
    FRAGMENT_ANONYMOUS = "fragment_anonymous"
    """Rejected: a piece without `message_id`."""
    FRAGMENT_REPEATED = "fragment_repeated"
    """Rejected: that piece is there already; the first one stays."""
    SUM_CHANGED = "sum_changed"
    """Rejected: the set began with another `sum`."""
    SET_TOO_LARGE = "set_too_large"
    """Rejected, and its set dropped: above 16 MiB."""
    SETS_FULL = "sets_full"
    """Rejected: 64 sets, or 64 MiB, are incomplete already."""


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One complete push. It wants exactly one ack, on the connection on which it came."""

    frame: frames.Frame | None = field(repr=False)
    """The ack is made from it; of a set it is the last frame. None: it came as text, which has no
    ack, so it cannot be asked for again."""
    kind: str
    """`event` or `card`."""
    payload: bytes = field(repr=False)
    message_id: str
    """Of this push, not of the event: a retry may have another. May be empty."""
    trace_id: str
    received: float
    """The `now` at which it was complete."""


@dataclass(frozen=True, slots=True, eq=False)
class Rejected:
    """A frame that makes no delivery, kept whole for its dead letter."""

    reason: str
    """A `FrameOutcome`."""
    payload: bytes = field(repr=False)
    """Of the frame; all that came in if it was no frame."""
    headers: Mapping[str, str]
    delivery: Delivery | None = None
    """To be acked once buried. None: nothing can be acked, or this is a piece of a set, whose ack
    would tell Feishu that the whole event is safe."""
