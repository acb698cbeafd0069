"""Subscribers: who is told what, and that none of them can hurt anybody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from flybridge.bridge.lifecycle import Connected, Disconnected, MessageReceived
from flybridge.bridge.node import subscribers as module
from flybridge.bridge.node.subscribers import Subscribers
from tests.waiting import eventually

CONNECTED = Connected("d", 1)


def message(number: int) -> MessageReceived:
    return MessageReceived("event", b"{}", str(number), number)


@pytest.fixture
def subscribers() -> Subscribers:
    return Subscribers()


def test_a_function_is_called_at_once_with_its_kind_only(subscribers: Subscribers) -> None:
    seen: list[object] = []
    subscribers.subscribe(Connected, seen.append)
    subscribers.tell(Disconnected(1000, "bye", 1))
    subscribers.tell(CONNECTED)
    assert seen == [CONNECTED]


def test_an_ended_subscription_is_told_nothing_and_ending_it_twice_is_harmless(
    subscribers: Subscribers,
) -> None:
    seen: list[object] = []
    end = subscribers.subscribe(Connected, seen.append)
    subscribers.subscribe(Connected, lambda each: seen.append("other"))
    end()
    end()
    subscribers.tell(CONNECTED)
    assert seen == ["other"]


def test_a_subscriber_that_ends_itself_while_it_is_told_disturbs_no_other(
    subscribers: Subscribers,
) -> None:
    seen: list[str] = []
    end = subscribers.subscribe(Connected, lambda each: (seen.append("once"), end()))
    subscribers.subscribe(Connected, lambda each: seen.append("always"))
    subscribers.tell(CONNECTED)
    subscribers.tell(CONNECTED)
    assert seen == ["once", "always", "always"]


def test_nobody_is_told_of_what_nobody_wants(subscribers: Subscribers) -> None:
    assert not subscribers.wants(MessageReceived)
    end = subscribers.subscribe(MessageReceived, print)
    assert subscribers.wants(MessageReceived)
    end()
    assert not subscribers.wants(MessageReceived)


async def test_an_async_subscriber_sees_things_in_their_order(subscribers: Subscribers) -> None:
    seen: list[str] = []

    async def slow_at_first(received: MessageReceived) -> None:
        await asyncio.sleep(0.01 if received.message_id == "0" else 0)
        seen.append(received.message_id)

    subscribers.subscribe(MessageReceived, slow_at_first)
    for number in range(3):
        subscribers.tell(message(number))
    await eventually(lambda: seen == ["0", "1", "2"])


async def test_an_endless_subscriber_holds_up_nobody_and_loses_what_is_too_much(
    subscribers: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 5)
    seen: list[str] = []

    async def endless(received: MessageReceived) -> None:
        await asyncio.Event().wait()

    subscribers.subscribe(MessageReceived, endless)
    subscribers.subscribe(MessageReceived, lambda received: seen.append(received.message_id))
    with capture_logs() as logs:
        for number in range(20):
            subscribers.tell(message(number))
    assert len(seen) == 20
    overruns = [line["dropped"] for line in logs if line["event"] == "subscriber.overrun"]
    assert overruns == [1, 10]
    await subscribers.settle(0.01)
    assert [task.get_name() for task in asyncio.all_tasks()].count("subscriber") == 0


@pytest.mark.parametrize("error", [ValueError("theirs"), asyncio.CancelledError()])
async def test_what_a_subscriber_raises_is_logged_now_and_then_and_nothing_else(
    subscribers: Subscribers, error: BaseException
) -> None:
    seen: list[object] = []

    def fail(connected: Connected) -> None:
        raise error

    async def fail_later(connected: Connected) -> None:
        raise error

    subscribers.subscribe(Connected, fail)
    subscribers.subscribe(Connected, fail_later)
    subscribers.subscribe(Connected, seen.append)
    with capture_logs() as logs:
        for _ in range(30):
            subscribers.tell(CONNECTED)
        await subscribers.settle(1.0)
    assert len(seen) == 30
    for name in ("fail", "fail_later"):
        lines = [line for line in logs if line["subscriber"].endswith(f".{name}")]
        assert [line["times"] for line in lines] == [1, 10], name
        assert lines[0]["event"] == "subscriber.failed"
        assert type(error).__name__ in lines[0]["exception"]


async def test_an_async_subscriber_that_fails_is_told_of_the_next_one(
    subscribers: Subscribers,
) -> None:
    seen: list[str] = []

    async def fail_once(received: MessageReceived) -> None:
        seen.append(received.message_id)
        if received.message_id == "0":
            raise ValueError

    subscribers.subscribe(MessageReceived, fail_once)
    subscribers.tell(message(0))
    subscribers.tell(message(1))
    await eventually(lambda: seen == ["0", "1"])


def test_a_slow_function_is_warned_of_once() -> None:
    now = [0.0]
    subscribers = Subscribers(clock=lambda: now[0])

    def slow(connected: Connected) -> None:
        now[0] += 0.3

    subscribers.subscribe(Connected, slow)
    with capture_logs() as logs:
        subscribers.tell(CONNECTED)
        subscribers.tell(CONNECTED)
    (warning,) = logs
    assert (warning["event"], warning["seconds"]) == ("subscriber.slow", 0.3)
    assert warning["subscriber"].endswith("slow")


async def test_who_settles_the_subscribers_is_not_cancelled_itself(
    subscribers: Subscribers,
) -> None:
    ended: list[str] = []

    async def settle(connected: Connected) -> None:
        await subscribers.settle(0.01)
        ended.append("settled")

    subscribers.subscribe(Connected, settle)
    subscribers.tell(CONNECTED)
    await eventually(lambda: ended == ["settled"])


async def test_a_subscription_ended_while_events_wait_leaves_no_coroutine_behind(
    subscribers: Subscribers,
) -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def wait(received: MessageReceived) -> None:
        await go.wait()
        seen.append(received.message_id)

    end = subscribers.subscribe(MessageReceived, wait)
    subscribers.tell(message(0))
    await asyncio.sleep(0)
    subscribers.tell(message(1))
    end()
    go.set()
    await subscribers.settle(1.0)
    assert seen == ["0"]


@pytest.mark.parametrize(("kind", "callback"), [(str, print), (Connected, "print")])
def test_what_cannot_be_is_a_sentence(subscribers: Subscribers, kind: Any, callback: Any) -> None:
    with pytest.raises(TypeError, match="; give"):
        subscribers.subscribe(kind, callback)


def test_a_payload_is_in_no_repr() -> None:
    assert "secret" not in repr(MessageReceived("event", b"secret", "m", 1))


def test_logs_of_a_failure_hold_the_traceback(
    subscribers: Subscribers, capsys: pytest.CaptureFixture[str]
) -> None:
    subscribers.subscribe(Connected, lambda each: 1 / 0)
    with capture_logs(processors=[structlog.processors.format_exc_info]) as logs:
        subscribers.tell(CONNECTED)
    assert "ZeroDivisionError" in logs[0]["exception"]
