"""What a connection brings reaches the feed, and whoever has subscribed."""

from __future__ import annotations

from typing import Any

import pytest

from flybridge.bridge.lifecycle import Happening, HeartbeatReceived, MessageReceived
from flybridge.bridge.node.reconnector import FeedReceiver
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.protocol import frames
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.heartbeat import Pulse

FRAME = frames.new(service=1, method=frames.DATA, headers={"type": "event"})
DELIVERY = Delivery(FRAME, "event", b"{}", "m1", "t1", 0.0)


class Feed:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.take = self.reject = self.taken.append


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def lifecycle() -> Subscribers:
    return Subscribers()


@pytest.fixture
def receiver(feed: Any, lifecycle: Subscribers) -> FeedReceiver:
    return FeedReceiver(feed, lifecycle)


def test_pushes_and_rejected_frames_go_to_the_feed(receiver: FeedReceiver, feed: Feed) -> None:
    rejected = Rejected("invalid", b"x", {})
    receiver.on_delivery(DELIVERY)
    receiver.on_rejected(rejected)
    receiver.on_text("ping", "{}")
    receiver.on_pulse(Pulse(24.0, "steady"))
    assert feed.taken == [DELIVERY, rejected]


def test_subscribers_are_told_of_messages_and_heartbeats(
    receiver: FeedReceiver, lifecycle: Subscribers
) -> None:
    seen: list[Any] = []
    kinds: tuple[type[Happening], ...] = (MessageReceived, HeartbeatReceived)
    for kind in kinds:
        lifecycle.subscribe(kind, seen.append)
    receiver.on_delivery(DELIVERY)
    receiver.on_text("ping", '{"type":"ping"}')
    receiver.on_text("pong", "half of a pair: \ud800")
    receiver.on_pulse(Pulse(24.0, "steady", round_trip=0.1))
    message, ping, odd, heartbeat = seen
    assert (message.kind, message.payload, message.message_id) == ("event", b"{}", "m1")
    assert (ping.kind, ping.payload, ping.message_id) == ("ping", b'{"type":"ping"}', "")
    assert odd.payload == b"half of a pair: ?"
    assert (heartbeat.interval, heartbeat.status, heartbeat.round_trip) == (24.0, "steady", 0.1)
