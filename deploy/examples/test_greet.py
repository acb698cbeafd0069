"""Tests of a handler: alone in three lines, and from Feishu to its end. Run it with pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flybridge.handlers import Context, Event, Handler, Retry
from flybridge.handlers.payloads.im import MessageReceived
from flybridge.handlers.testing import run

if TYPE_CHECKING:
    from flybridge.bridge.testing import Flybridge

pytest_plugins = ["flybridge.bridge.testing"]

MESSAGE = "im.message.receive_v1"


class Greet(Handler):
    event_types = MESSAGE

    def handle(self, event: Event[MessageReceived], context: Context) -> str:
        if "later" in event.payload.message.content:
            raise Retry(after=30)
        return f"hello, {event.payload.message.chat_id}"


def test_it_greets() -> None:
    result = run(Greet, MESSAGE, {"message.chat_id": "oc_1"})
    assert result.value == "hello, oc_1"


def test_it_waits_when_it_is_told_to() -> None:
    result = run(Greet, MESSAGE, {"message.content": "later"})
    assert not result.succeeded
    assert result.retry_after == 30


def test_at_last_it_gives_up() -> None:
    assert run(Greet, MESSAGE, {"message.content": "later"}, attempt=5).given_up == "attempts"


def test_from_feishu_to_the_end(flybridge: Flybridge) -> None:
    flybridge.add_handler(Greet)
    assert flybridge.push(MESSAGE).settled() == "done"
