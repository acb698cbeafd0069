"""`flybridge.testing.run`: what runs, what the handler gets, and what the result says."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
import threading
import time
from functools import partial
from typing import Any

import pytest

from flybridge.handlers import Context, Event, Handler, Middleware, Registry, Reject, Retry
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registry import handles, registry
from flybridge.handlers.samples import sample
from flybridge.handlers.testing import run, run_async

MESSAGE = "im.message.receive_v1"


class Greet(Handler):
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    async def handle(self, event: Event, context: Context) -> str:
        await asyncio.sleep(0)
        return f"{self.greeting}, {json.loads(event.payload.message.content)['text']}"


def greet(event: Event, context: Context) -> str:
    return f"hello, {json.loads(event.body['message']['content'])['text']}"


def made() -> Greet:
    return Greet("good day")


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (Greet, "hello, Bo"),
        (Greet("hi"), "hi, Bo"),
        (made, "good day, Bo"),
        (partial(Greet, "hey"), "hey, Bo"),
        (greet, "hello, Bo"),
    ],
    ids=["class", "instance", "factory", "partial", "function"],
)
async def test_three_lines_run_a_handler_whatever_it_is_given_as(handler: Any, said: str) -> None:
    result = await asyncio.to_thread(run, handler, MESSAGE, {"message.content": "Bo"})
    assert result.succeeded
    assert result.value == said
    assert (await run_async(handler, MESSAGE, {"message.content": "Bo"})).value == said


def test_an_event_an_envelope_and_json_do_for_a_type() -> None:
    envelope = sample(MESSAGE, event_id="ev-7")
    for given in (Event.from_envelope(envelope), envelope, json.dumps(envelope).encode()):
        assert run(lambda event, context: event.id, given).value == "ev-7"


def test_an_alias_is_the_event_that_feishu_sends() -> None:
    result = run(lambda event, context: event.body["status"], "approval.approval.rejected_v1")
    assert result.value == "REJECTED"


def test_a_handler_is_told_what_a_worker_would_tell_it() -> None:
    contexts: list[Context] = []

    class Notes(Handler):
        max_attempts = 3
        timeout = 7.0

        def handle(self, event: Event, context: Context) -> None:
            contexts.append(context)

    run(Notes, MESSAGE, attempt=2)
    (context,) = contexts
    assert (context.attempt, context.max_attempts, context.event_type) == (2, 3, MESSAGE)
    assert context.handler.endswith("Notes")
    assert 6.0 < context.remaining() <= 7.0


def test_a_failure_waits_as_long_as_the_options_say() -> None:
    class Fails(Handler):
        max_attempts = 3
        backoff = 4.0
        backoff_max = 6.0

        def handle(self, event: Event, context: Context) -> None:
            raise ValueError("no")

    first, second, third = (run(Fails, MESSAGE, attempt=attempt) for attempt in (1, 2, 3))
    assert (first.succeeded, first.retry_after, first.given_up) == (False, 4.0, "")
    assert second.retry_after == 6.0
    assert (third.retry_after, third.given_up) == (None, "attempts")
    with pytest.raises(ValueError, match="no"):
        first.raise_for_failure()


def test_retry_and_reject_mean_what_they_mean_in_a_worker() -> None:
    def later(event: Event, context: Context) -> None:
        raise Retry(after=30)

    def never(event: Event, context: Context) -> None:
        raise Reject("not for us")

    assert run(later, MESSAGE).retry_after == 30
    refused = run(never, MESSAGE)
    assert (refused.rejected, refused.retry_after) == (True, None)
    assert str(refused.error) == "not for us"


def test_a_success_is_handed_on() -> None:
    assert run(greet, MESSAGE, {"message.content": "Bo"}).raise_for_failure().value == "hello, Bo"


def test_a_field_of_another_shape_fails_where_it_is_used_and_no_envelope_is_a_decode_failure() -> (
    None
):
    result = run(Greet, {**sample(MESSAGE), "event": {"message": 7}})
    assert isinstance(result.error, AttributeError)
    assert run(Greet, b"[]").given_up == "decode"


async def test_an_async_handler_is_cancelled_at_its_timeout() -> None:
    class Hangs(Handler):
        timeout = 0.05

        async def handle(self, event: Event, context: Context) -> None:
            await asyncio.sleep(60)

    for result in (await run_async(Hangs, MESSAGE), await asyncio.to_thread(run, Hangs, MESSAGE)):
        assert isinstance(result.error, TimeoutError)
        assert str(result.error) == "still running after 0.05 s; raise its timeout"
        assert result.retry_after == 1.0


class Sleeps(Handler):
    timeout = 0.05

    def handle(self, event: Event, context: Context) -> None:
        time.sleep(30)


def test_a_def_handler_is_interrupted_at_its_timeout() -> None:
    began = time.monotonic()
    result = run(Sleeps, MESSAGE)
    assert time.monotonic() - began < 5
    assert isinstance(result.error, TimeoutError)
    assert result.retry_after == 1.0


def test_the_alarm_of_who_runs_the_test_is_given_back() -> None:
    rung = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.set())
    left, _ = signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        assert isinstance(run(Sleeps, MESSAGE).error, TimeoutError)
        assert not rung.is_set()
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 1.0
        signal.pause()
        assert rung.is_set()
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


class RunnerStops(BaseException):
    """Stands for what a test runner raises at its own time limit."""


def test_an_alarm_that_comes_before_the_timeout_is_left_alone() -> None:
    def ring(number: int, frame: object) -> None:
        raise RunnerStops

    class SleepsLonger(Sleeps):
        timeout = 20.0

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(RunnerStops):
            run(SleepsLonger, MESSAGE)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


async def test_an_async_handler_in_an_async_test_is_answered_with_what_to_write() -> None:
    with pytest.raises(RuntimeError, match="await run_async"):
        run(Greet, MESSAGE)


async def test_a_cancelled_test_is_no_failure_of_the_handler() -> None:
    started = asyncio.Event()

    async def hangs(event: Event, context: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(run_async(hangs, MESSAGE))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_pytest_raises_is_not_swallowed() -> None:
    def fails(event: Event, context: Context) -> None:
        pytest.fail("the handler was not to be called")

    with pytest.raises(pytest.fail.Exception):
        run(fails, MESSAGE)


# As registered


@pytest.fixture
def decorated(clean_registry: None) -> type[Handler]:
    @handles(MESSAGE, "approval.approval.approved_v1", max_attempts=1)
    class Once(Handler):
        def __init__(self) -> None:
            self.calls = 0

        def handle(self, event: Event, context: Context) -> int:
            self.calls += 1
            if event.body.get("fails"):
                raise ValueError
            return self.calls

    return Once


def test_options_of_the_decorator_count(decorated: type[Handler]) -> None:
    envelope = sample(MESSAGE)
    envelope["event"]["fails"] = True
    assert run(decorated, envelope).given_up == "attempts"


def test_every_run_has_an_instance_of_its_own_unless_a_registry_is_given(
    decorated: type[Handler],
) -> None:
    assert [run(decorated, MESSAGE).value for _ in range(2)] == [1, 1]
    assert [run(decorated, MESSAGE, registry=registry).value for _ in range(2)] == [1, 2]


def test_a_status_that_the_alias_does_not_mean_is_skipped_as_in_a_worker(
    decorated: type[Handler],
) -> None:
    assert run(decorated, "approval.approval.approved_v1").value == 1
    assert run(decorated, "approval.approval.rejected_v1").value is None


def test_an_event_that_no_worker_would_bring_is_a_mistake_of_the_test(
    decorated: type[Handler],
) -> None:
    with pytest.raises(RegistrationInvalid, match=r"no worker would run it for im\.chat"):
        run(decorated, "im.chat.updated_v1")
    with pytest.raises(RegistrationInvalid, match=r"not registered for im\.chat"):
        run(greet, "im.chat.updated_v1", registry=Registry())


def test_the_types_of_the_class_count_too() -> None:
    class OfChats(Handler):
        event_types = "im.chat.*"

        def handle(self, event: Event, context: Context) -> str:
            return event.type

    assert run(OfChats, "im.chat.updated_v1").succeeded
    with pytest.raises(RegistrationInvalid, match=r"registered for im\.chat\.\*"):
        run(OfChats, MESSAGE)


def test_the_default_of_a_registry_runs_for_what_nobody_handles() -> None:
    given = Registry()
    given.set_default(greet)
    assert run(greet, MESSAGE, {"message.content": "Bo"}, registry=given).value == "hello, Bo"


class Notes(Middleware):
    def __init__(self) -> None:
        self.hooks: list[str] = []

    def before(self, event: Event, context: Context) -> None:
        self.hooks.append("before")
        if "stop" in event.body["message"]["content"]:
            raise Reject("stopped by middleware")

    async def after(self, event: Event, context: Context, result: Any) -> None:
        self.hooks.append(f"after {result}")

    def error(self, event: Event, context: Context, error: BaseException) -> None:
        self.hooks.append(f"error {error!r}")


async def test_the_middleware_of_a_registry_applies() -> None:
    given, notes = Registry(), Notes()
    given.register(greet, MESSAGE)
    given.use(notes)
    run_greet = functools.partial(run, greet, MESSAGE, registry=given)

    assert (await asyncio.to_thread(run_greet, {"message.content": "Bo"})).value == "hello, Bo"
    assert (await run_async(greet, MESSAGE, {"message.content": "stop"}, registry=given)).rejected
    assert notes.hooks == ["before", "after hello, Bo", "before"]
    assert run(greet, MESSAGE, {"message.content": "stop"}).succeeded, "none is given"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("im.message.recieve_v1",), "no sample of"),
        ((MESSAGE, {"massage.content": "x"}), "The sample has no"),
        ((sample(MESSAGE), {"message.content": "x"}), "overrides change a sample"),
    ],
)
def test_mistakes_of_a_test_are_sentences(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(greet, *arguments)


def test_a_class_that_is_no_handler_is_refused_as_at_registration() -> None:
    with pytest.raises(RegistrationInvalid, match="is not a handler"):
        run(dict, MESSAGE)
