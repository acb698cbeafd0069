"""A flood of messages that nobody can use is no flood of log lines, and no line holds a body."""

from __future__ import annotations

from types import SimpleNamespace

from structlog.testing import capture_logs

from flybridge.workers.celery_integration.stray import (
    LINES_PER_PERIOD,
    LOG_PERIOD,
    Refusals,
    Unread,
)

MESSAGE = SimpleNamespace(
    headers={"task": "t" * 1000, "id": ["odd"]}, content_type=7, body=b"canary", delivery_info={}
)


def test_messages_beyond_measure_are_counted_and_told_of_later() -> None:
    now = 100.0
    refusals = Refusals(lambda: now)
    with capture_logs() as said:
        for _ in range(LINES_PER_PERIOD + 5):
            refusals.tell(ValueError("no"), "im", MESSAGE)
        now += LOG_PERIOD
        refusals.tell(ValueError("no"), "im")
    assert len(said) == LINES_PER_PERIOD + 1
    assert said[-1]["untold"] == 5


def test_a_line_names_the_message_as_far_as_it_can_and_holds_no_body() -> None:
    with capture_logs() as said:
        Refusals().tell(ValueError("no"), "im", MESSAGE)
    (line,) = said
    assert (line["queue"], line["reason"], line["bytes"]) == ("im", "ValueError: no", 6)
    assert len(line["task"]) == 200
    assert "canary" not in str(line)


def test_lists_that_nobody_reads_are_told_of_once_and_their_growth_once_a_period() -> None:
    now, waiting = 100.0, {"im": 1}
    unread = Unread(lambda: now)
    channel = SimpleNamespace(unread=lambda queues: dict(waiting))
    consumer = SimpleNamespace(channel=channel, queues=[SimpleNamespace(name="im")])
    with capture_logs() as said:
        for waiting["im"] in (1, 1, 2, 3):
            unread.look(consumer)
        now += LOG_PERIOD
        unread.look(consumer)
        waiting["card"] = 1
        unread.look(consumer)
        waiting.clear()
        unread.look(consumer)
        unread.look(None)
    assert [line["count"] for line in said] == [1, 3, 4]
