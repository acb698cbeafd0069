"""Counts outcomes, frames and ack times since the start of the bridge."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from flybridge.bridge.protocol.heartbeat import Heartbeat

ACK_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
"""Seconds; upper bounds of the buckets. Feishu: an ack later than 3 s counts as none."""


@dataclass(slots=True)
class AckTimes:
    """A histogram of the seconds from a delivery's receipt to its ack."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(ACK_BOUNDS) + 1))
    """Per bucket, not cumulated; the last is for what is above all bounds."""
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(ACK_BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counters:
    """The counts of a bridge, over all connections and leaderships."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """`published`, `duplicate`, `buried`, and the reasons of `PublishRefused`."""
    frames: Counter[str] = field(default_factory=Counter)
    """By `FrameOutcome`."""
    ack_times: AckTimes = field(default_factory=AckTimes)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    leaderships: int = 0
    connects: int = 0
