"""What `flybridge.handlers.testing` reports is what the runner would do: one table, both asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from flybridge.handlers import Batch, BatchContext, Context, Event, Handler, Registry, Reject, Retry
from flybridge.handlers.registry import Registration
from flybridge.handlers.samples import sample
from flybridge.handlers.testing import Result, run, run_async, run_batch
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.run import batch_runner
from flybridge.workers.run.items import Item
from tests.workers import attempts

MESSAGE = "im.message.receive_v1"


class Succeeds(Handler):
    def handle(self, event: Event, context: Context) -> str:
        return "done"


class SucceedsLater(Handler):
    async def handle(self, event: Event, context: Context) -> str:
        await asyncio.sleep(0)
        return "done"


class HidesAnAwaitable(Handler):
    def handle(self, event: Event, context: Context) -> Awaitable[str]:
        return SucceedsLater().handle(event, context)


class AsksAgain(Handler):
    def handle(self, event: Event, context: Context) -> None:
        raise Retry


class AsksForAWait(Handler):
    async def handle(self, event: Event, context: Context) -> None:
        raise Retry(after=90, reason="rate limited")


class Refuses(Handler):
    async def handle(self, event: Event, context: Context) -> None:
        raise Reject("not for us")


class Breaks(Handler):
    max_attempts = 3
    backoff = 2.0
    backoff_max = 3.0

    def handle(self, event: Event, context: Context) -> None:
        raise ValueError("broken")


class StopsIterating(Handler):
    def handle(self, event: Event, context: Context) -> None:
        raise StopIteration


class Exits(Handler):
    def handle(self, event: Event, context: Context) -> None:
        raise SystemExit(3)


class CancelsItself(Handler):
    async def handle(self, event: Event, context: Context) -> None:
        raise asyncio.CancelledError


class RunsLate(Handler):
    timeout = 0.02

    async def handle(self, event: Event, context: Context) -> None:
        await asyncio.sleep(30)


class TimesOutWithin(Handler):
    async def handle(self, event: Event, context: Context) -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(30)


class WantsAnotherShape(Handler):
    def handle(self, event: Event, context: Context) -> None:
        assert event.payload.message.chat_id


class Chat(BaseModel):
    message: dict[str, Any]


class NamesItsPayload(Handler):
    async def handle(self, event: Event[Chat], context: Context) -> None:
        assert event.payload.message["chat_id"]


class WantsYoungEvents(Handler):
    max_age = 60.0

    def handle(self, event: Event, context: Context) -> None:
        raise Retry(after=90)


HANDLERS = [
    Succeeds,
    SucceedsLater,
    HidesAnAwaitable,
    AsksAgain,
    AsksForAWait,
    Refuses,
    Breaks,
    StopsIterating,
    Exits,
    CancelsItself,
    RunsLate,
    TimesOutWithin,
    WantsAnotherShape,
    NamesItsPayload,
    WantsYoungEvents,
]

GOOD = json.dumps(sample(MESSAGE)).encode()
MISSHAPEN = json.dumps({**sample(MESSAGE), "event": {"message": 7}}).encode()
UNREADABLE = b'{"schema":"2.0"}'


def old() -> bytes:
    envelope = sample(MESSAGE)
    envelope["header"]["create_time"] = str(int((time.time() - 3600) * 1000))
    return json.dumps(envelope).encode()


ATTEMPTS = [(GOOD, 1), (GOOD, 3), (GOOD, 5), (MISSHAPEN, 1), (UNREADABLE, 1), (old(), 1)]


@pytest.fixture(params=ATTEMPTS, ids=["good", "third", "fifth", "misshapen", "unreadable", "old"])
def attempted(request: pytest.FixtureRequest) -> tuple[bytes, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks in colour take longer than all the rest."""
    with capture_logs():
        yield


@pytest.fixture(params=HANDLERS)
def handler(request: pytest.FixtureRequest) -> type[Handler]:
    return request.param  # type: ignore[no-any-return]


def born(envelope: bytes) -> float | None:
    """From when a worker counts the event's age: from the time that the bridge reads from it."""
    if envelope == UNREADABLE:
        return None
    age = time.time() - int(json.loads(envelope)["header"]["create_time"]) / 1000
    return time.monotonic() - age


def agree(result: Result, outcome: Outcome) -> None:
    """A worker's wait is drawn from half to all of what the kit names."""
    said = "done" if result.succeeded else "dead" if result.given_up else "retry"
    assert said == outcome.verdict
    if outcome.verdict == "dead":
        assert result.given_up == outcome.failed[0].reason
        assert outcome.failed[0].error
    if outcome.retry_after is not None:
        assert result.retry_after is not None
        assert result.retry_after / 2 <= outcome.retry_after <= result.retry_after
        assert type(result.error).__name__ in outcome.error


def registered(handler: type[Handler]) -> Registry:
    registry = Registry()
    registry.register(handler, "*")
    return registry


def test_the_kit_and_the_runner_agree(handler: type[Handler], attempted: tuple[bytes, int]) -> None:
    envelope, attempt = attempted
    outcome = attempts.run(registered(handler), envelope, attempt, {}, born=born(envelope))
    agree(run(handler, envelope, attempt=attempt), outcome)


async def test_they_agree_on_a_running_loop(
    handler: type[Handler], attempted: tuple[bytes, int]
) -> None:
    envelope, attempt = attempted
    registry = registered(handler)
    outcome = await attempts.run_async(registry, envelope, attempt, {}, born=born(envelope))
    agree(await run_async(handler, envelope, attempt=attempt), outcome)


# Batches


class SavesSome(Handler):
    batch = Batch(size=10)
    max_attempts = 2

    async def handle(self, events: Sequence[Event], context: BatchContext) -> list[Any]:
        return [None, Retry(after=90), Reject("no"), ValueError("no")][: len(events)]


class SavesNone(Handler):
    batch = Batch(size=10)

    def handle(self, events: Sequence[Event], context: BatchContext) -> None:
        raise OSError("the database is away")


class SavesChats(Handler):
    batch = Batch(size=10)

    async def handle(self, events: Sequence[Event[Chat]], context: BatchContext) -> list[Any]:
        assert all(event.payload.message["chat_id"] for event in events)
        return [None, Reject("no"), None][: len(events)]


class SaysNothing(Handler):
    batch = Batch(size=10)

    def handle(self, events: Sequence[Event], context: BatchContext) -> bool:
        return True


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("batcher", [SavesSome, SavesNone, SavesChats, SaysNothing])
def test_they_agree_on_batches(batcher: type[Handler], attempt: int) -> None:
    envelopes = [GOOD, GOOD, UNREADABLE, MISSHAPEN, GOOD]
    items = [
        Item(f"ev{number}", MESSAGE, envelope, attempt, {}, born(envelope), "", "")
        for number, envelope in enumerate(envelopes)
    ]
    outcomes = batch_runner.run(registered(batcher), items, lambda items: None)
    results = run_batch(batcher, envelopes, attempts=attempt)
    for result, outcome in zip(results, outcomes, strict=True):
        agree(result, outcome)


# The soft time limit


def test_they_agree_on_a_def_handler_that_the_soft_time_limit_interrupts(
    alarm: Callable[[float], Any],
) -> None:
    class Hangs(Handler):
        timeout = 0.02

        def handle(self, event: Event, context: Context) -> None:
            time.sleep(30)

    result = run(Hangs, GOOD)

    @contextmanager
    def limited(registration: Registration) -> Iterator[None]:
        with alarm(registration.timeout):
            yield

    outcome = attempts.run(registered(Hangs), GOOD, 1, {}, around=limited)
    assert outcome.error.startswith("SoftTimeLimitExceeded")
    assert (outcome.verdict, result.succeeded, result.given_up) == ("retry", False, "")
    assert result.retry_after == 1.0
    assert 0.5 <= (outcome.retry_after or 0) <= 1.0


@pytest.fixture
def alarm() -> Callable[[float], Any]:
    """As billiard's: an exception in the main thread, raised by a signal."""
    from billiard.exceptions import SoftTimeLimitExceeded

    from flybridge.handlers.trial import trials

    @contextmanager
    def limited(timeout: float) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trials, "_late", lambda timeout: SoftTimeLimitExceeded())
            with trials._alarm(timeout):
                yield

    return limited
