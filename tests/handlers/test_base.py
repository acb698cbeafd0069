from __future__ import annotations

import time

import structlog

from flybridge.handlers import Context


def test_the_logger_carries_event_handler_and_attempt(context: Context) -> None:
    with structlog.testing.capture_logs() as lines:
        context.logger.info("greeting.sent")
    assert lines == [
        {
            "event": "greeting.sent",
            "log_level": "info",
            "event_id": "ev-1",
            "event_type": "im.message.receive_v1",
            "handler": "tests:Handler",
            "attempt": 1,
        }
    ]


def test_remaining_counts_down_to_zero() -> None:
    late = Context(1, 5, time.monotonic() - 1, "e", "t", "h")
    early = Context(1, 5, time.monotonic() + 30, "e", "t", "h")
    assert late.remaining() == 0.0
    assert 29 < early.remaining() <= 30
