"""`flybridge.testing.run_batch`: batch handlers in users' tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from flybridge.handlers import Batch, BatchContext, Event, Handler, Reject, Retry
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.samples import sample
from flybridge.handlers.testing import Result, run, run_batch, run_batch_async

MESSAGE = "im.message.receive_v1"


class Save(Handler):
    """Returns for each event what the name of its chat says."""

    batch = Batch(size=10)
    max_attempts = 2
    backoff = 4.0

    async def handle(self, events: Sequence[Event], context: BatchContext) -> list[Any]:
        await asyncio.sleep(0)
        ends = {"later": Retry(after=30), "never": Reject("no"), "broken": ValueError("no")}
        return [ends.get(event.payload.message.chat_id, context.attempts) for event in events]


def in_chat(chat: str) -> dict[str, Any]:
    return sample(MESSAGE, overrides={"message.chat_id": chat})


def ends(results: Sequence[Result]) -> list[object]:
    return [each.given_up or each.retry_after or each.value for each in results]


def test_every_event_has_a_result_of_its_own() -> None:
    chats = ("oc_1", "later", "never", "broken")
    results = run_batch(Save, [in_chat(chat) for chat in chats], attempts=(1, 1, 1, 2))
    assert ends(results) == [(1, 1, 1, 2), 30, "rejected", "attempts"]
    assert [each.succeeded for each in results] == [True, False, False, False]


def test_an_exception_s_class_is_a_failure_as_in_a_worker() -> None:
    class Odd(Save):
        async def handle(self, events: Sequence[Event], context: BatchContext) -> list[Any]:
            return [Reject, None]

    first, second = run_batch(Odd, [MESSAGE, MESSAGE])
    assert "the class Reject was returned" in str(first.error)
    assert second.succeeded


async def test_async_tests_await_it() -> None:
    results = await run_batch_async(Save, [MESSAGE, in_chat("broken")])
    assert ends(results) == [(1, 1), 4.0]


async def test_a_def_handler_works_in_both() -> None:
    def save(events: Sequence[Event], context: BatchContext) -> None:
        assert len(events) == len(context.attempts) == 2

    class Saves(Handler):
        batch = Batch(size=2)

        def handle(self, events: Sequence[Event], context: BatchContext) -> None:
            save(events, context)

    for results in (
        await run_batch_async(Saves, [MESSAGE] * 2),
        await asyncio.to_thread(run_batch, Saves, [MESSAGE] * 2),
    ):
        assert ends(results) == [None, None]
        assert all(each.succeeded for each in results)


def test_raising_fails_them_all() -> None:
    class Down(Handler):
        batch = Batch(size=2)

        def handle(self, events: Sequence[Event], context: BatchContext) -> None:
            raise Retry(after=5)

    assert ends(run_batch(Down, [MESSAGE] * 2)) == [5, 5]


def test_a_late_batch_fails_as_a_whole() -> None:
    class Hangs(Handler):
        batch = Batch(size=2)
        timeout = 0.02

        def handle(self, events: Sequence[Event], context: BatchContext) -> None:
            time.sleep(30)

    results = run_batch(Hangs, [MESSAGE] * 2)
    assert {type(each.error) for each in results} == {TimeoutError}


@pytest.mark.parametrize("value", [True, [], [None] * 3, "no", {}])
def test_an_answer_that_says_nothing_of_the_events_is_a_mistake(value: Any) -> None:
    class Answers(Handler):
        batch = Batch(size=2)

        def handle(self, events: Sequence[Event], context: BatchContext) -> Any:
            return value

    first, second = run_batch(Answers, [MESSAGE] * 2)
    assert first.error is second.error
    assert "return None, or a list" in str(first.error)


def test_what_cannot_be_read_or_is_too_old_does_not_come_to_the_handler() -> None:
    class Young(Save):
        max_age = 60.0

    old = sample(MESSAGE)
    old["header"]["create_time"] = str(int((time.time() - 3600) * 1000))
    results = run_batch(Young, [MESSAGE, b"[]", old])
    assert ends(results) == [(1,), "decode", "age"]
    assert ends(run_batch(Young, [b"[]", old])) == ["decode", "age"]
    assert ends(run_batch(Young, [b"[]"])) == ["decode"]


def test_mistakes_of_a_test_are_sentences() -> None:
    def single(event: Event, context: object) -> None: ...

    with pytest.raises(RegistrationInvalid, match=r"takes batches; write: run_batch"):
        run(Save, MESSAGE)
    with pytest.raises(RegistrationInvalid, match=r"takes single events; write: run\("):
        run_batch(single, [MESSAGE])
    with pytest.raises(ValueError, match="11 events are more than"):
        run_batch(Save, [MESSAGE] * 11)
    with pytest.raises(ValueError, match="2 attempts for 1 events"):
        run_batch(Save, [MESSAGE], attempts=(1, 2))
    with pytest.raises(ValueError, match="events of one type"):
        run_batch(Save, [MESSAGE, "im.chat.updated_v1"])
