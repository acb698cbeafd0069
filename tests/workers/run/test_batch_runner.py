from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from flybridge.bridge.process.boottime import boottime
from flybridge.handlers import Batch, BatchContext, Context, Event, Handler, Registry, Reject, Retry
from flybridge.handlers.registry import Registration
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.run import batch_runner
from flybridge.workers.run.items import Item
from flybridge.workers.run.loops import close_loop

ROW = "test.row_v1"

Run = Callable[..., list[Outcome]]


@pytest.fixture(params=["own loop", "running loop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    if request.param == "own loop":
        yield batch_runner.run
        close_loop()
        return

    def run_async(*args: Any, **options: Any) -> list[Outcome]:
        return asyncio.run(batch_runner.run_async(*args, **options))

    yield run_async


def no_trace(items: Sequence[Item]) -> None:
    return None


def item(event_id: str, attempt: int = 1, **more: Any) -> Item:
    header = {"event_id": event_id, "event_type": ROW, "app_id": "app", "tenant_key": "tk"}
    envelope = {"schema": "2.0", "header": header, "event": {"name": event_id}}
    given = {"envelope": json.dumps(envelope).encode(), "marks": {}, "born": None, **more}
    return Item(event_id, ROW, attempt=attempt, traceparent="", tracestate="", **given)


def registry_of(*handlers: Any, **options: Any) -> Registry:
    registry = Registry()
    for handler in handlers:
        registry.register(handler, ROW, **options)
    return registry


class Save(Handler):
    batch = Batch(size=3, wait=0.1)
    max_attempts = 2
    backoff = 0.0

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.contexts: list[BatchContext] = []

    def handle(self, events: Sequence[Event], context: BatchContext) -> Any:
        self.calls.append([event.id for event in events])
        self.contexts.append(context)
        return self.answer(events)

    def answer(self, events: Sequence[Event]) -> Any:
        return None


class SaveLater(Save):
    async def handle(self, events: Sequence[Event], context: BatchContext) -> Any:
        self.calls.append([event.id for event in events])
        await asyncio.sleep(0)
        return self.answer(events)


def test_a_handler_gets_the_events_together_and_each_has_succeeded(run: Run) -> None:
    save = Save()
    outcomes = run(registry_of(save), [item("a"), item("b", 2)], no_trace)
    assert save.calls == [["a", "b"]]
    assert [outcome.verdict for outcome in outcomes] == ["done", "done"]
    context = save.contexts[0]
    assert (context.attempts, context.max_attempts) == ((1, 2), 2)
    assert context.handler.endswith("Save")
    assert 0 < context.remaining() <= 30
    assert context.deadline > time.monotonic()


def test_a_coroutine_takes_batches_too(run: Run) -> None:
    save = SaveLater()
    assert [each.verdict for each in run(registry_of(save), [item("a"), item("b")], no_trace)] == [
        "done",
        "done",
    ]
    assert save.calls == [["a", "b"]]


def test_a_batch_larger_than_the_handler_wants_is_split(run: Run) -> None:
    save = Save()
    run(registry_of(save), [item(name) for name in "abcd"], no_trace)
    assert sorted(save.calls) == [["a", "b", "c"], ["d"]]


def test_an_exception_in_the_place_of_an_event_fails_that_event_alone(run: Run) -> None:
    class Picky(Save):
        def answer(self, events: Sequence[Event]) -> Any:
            return ["fine", Retry(after=7), Reject("no such row")]

    outcomes = run(registry_of(Picky()), [item(name) for name in "abc"], no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["done", "retry", "dead"]
    assert outcomes[1].retry_after == 7
    assert [(each.reason, each.error) for each in outcomes[2].failed] == [
        ("rejected", "Reject: no such row")
    ]


def test_what_gather_returns_will_do(run: Run) -> None:
    class Gathers(SaveLater):
        async def handle(self, events: Sequence[Event], context: BatchContext) -> Any:
            work = (self.one(event) for event in events)
            return await asyncio.gather(*work, return_exceptions=True)

        async def one(self, event: Event) -> str:
            if event.id == "b":
                raise Reject("b is bad")
            return event.id

    outcomes = run(registry_of(Gathers()), [item("a"), item("b")], no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["done", "dead"]


def test_raising_fails_every_event_by_its_own_count_of_attempts(run: Run) -> None:
    class Breaks(Save):
        def answer(self, events: Sequence[Event]) -> Any:
            raise ConnectionError("database away")

    outcomes = run(registry_of(Breaks()), [item("a", 1), item("b", 2)], no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["retry", "dead"]
    assert outcomes[1].failed[0].reason == "attempts"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (3, "returned int for 2 events"),
        ([None], "returned 1 of them for 2 events"),
        ({"a": None}, "returned dict for 2 events"),
        ("ab", "returned str for 2 events"),
    ],
)
def test_any_other_return_is_a_mistake_that_loses_nothing(
    run: Run, answer: object, said: str
) -> None:
    class Odd(Save):
        def answer(self, events: Sequence[Event]) -> Any:
            return answer

    outcomes = run(registry_of(Odd()), [item("a"), item("b")], no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["retry", "retry"]
    assert said in outcomes[0].error


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Reject, "the class Reject was returned"),
        (KeyboardInterrupt, "the class KeyboardInterrupt was returned"),
        (KeyboardInterrupt(), "KeyboardInterrupt() was returned"),
        (SystemExit(1), "SystemExit(1) was returned"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_whatever_exception_is_returned_for_an_event_fails_it_and_no_other(
    run: Run, answer: object, said: str
) -> None:
    class Odd(Save):
        def answer(self, events: Sequence[Event]) -> Any:
            return [answer, None]

    outcomes = run(registry_of(Odd()), [item("a"), item("b")], no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["retry", "done"]
    assert said in outcomes[0].error


def test_marks_of_earlier_attempts_keep_an_event_out_of_the_batch(run: Run) -> None:
    save = Save()
    registry = registry_of(save)
    name = registry.list()[0].name
    items = [item("a", marks={name: ""}), item("b"), item("c", marks={name: "rejected\nno"})]
    outcomes = run(registry, items, no_trace)
    assert save.calls == [["b"]]
    assert [outcome.verdict for outcome in outcomes] == ["done", "done", "dead"]


def test_an_event_that_is_too_old_or_unreadable_does_not_spoil_the_batch(run: Run) -> None:
    save = Save()
    registry = registry_of(save, max_age=60.0)
    items = [item("a"), item("b", born=boottime() - 61), item("c", envelope=b"no json")]
    outcomes = run(registry, items, no_trace)
    assert save.calls == [["a"]]
    assert [outcome.verdict for outcome in outcomes] == ["done", "dead", "dead"]
    assert [outcome.failed[0].reason for outcome in outcomes[1:]] == ["age", "decode"]


def test_handlers_of_single_events_run_beside_a_batch_with_marks_of_their_own(run: Run) -> None:
    seen = []

    def audit(event: Event, context: Context) -> None:
        seen.append(event.id)
        if event.id == "b":
            raise Reject("not b")

    save = Save()
    outcomes = run(registry_of(save, audit), [item("a"), item("b")], no_trace)
    assert save.calls == [["a", "b"]]
    assert sorted(seen) == ["a", "b"]
    assert [outcome.verdict for outcome in outcomes] == ["done", "dead"]
    assert [len(outcome.finished) for outcome in outcomes] == [2, 1]
    assert isinstance(outcomes[1].failed[0], Failure)


@pytest.mark.parametrize(("concurrency", "most"), [(None, 3), (2, 1)])
async def test_single_events_of_a_batch_come_one_by_one_where_their_handler_limits_them(
    concurrency: int | None, most: int
) -> None:
    """As many batches at once as the limit says, and of each batch one event."""
    running: set[str] = set()
    together: list[int] = []

    async def audit(event: Event, context: Context) -> None:
        running.add(event.id)
        together.append(len(running))
        await asyncio.sleep(0)
        running.discard(event.id)

    registry = registry_of(Save())
    registry.register(audit, ROW, name="audit", concurrency=concurrency)
    events = [item(name) for name in "abc"]
    outcomes = await batch_runner.run_async(registry, events, no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["done"] * 3
    assert max(together) == most


def test_a_coroutine_that_outstays_its_timeout_fails_the_batch(run: Run) -> None:
    class Hangs(SaveLater):
        timeout = 0.01

        async def handle(self, events: Sequence[Event], context: BatchContext) -> Any:
            await asyncio.Event().wait()

    outcomes = run(registry_of(Hangs()), [item("a"), item("b")], no_trace)
    assert [outcome.verdict for outcome in outcomes] == ["retry", "retry"]
    assert "raise its timeout" in outcomes[0].error


def test_each_call_has_a_span_of_its_own_over_its_events(run: Run) -> None:
    spans = []

    def trace(items: Sequence[Item]) -> Any:
        @contextmanager
        def around(registration: Registration) -> Iterator[None]:
            spans.append([each.event_id for each in items])
            yield

        return around

    run(registry_of(Save()), [item("a"), item("b")], trace)
    assert spans == [["a", "b"]]


async def test_a_cancelled_batch_is_no_failure_of_its_handler() -> None:
    started = asyncio.Event()

    class Waits(SaveLater):
        async def handle(self, events: Sequence[Event], context: BatchContext) -> Any:
            started.set()
            await asyncio.Event().wait()

    work = asyncio.create_task(batch_runner.run_async(registry_of(Waits()), [item("a")], no_trace))
    await started.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


def test_whether_a_type_takes_batches_is_seen_from_its_handlers() -> None:
    assert batch_runner.takes_batches(registry_of(Save()), [item("a")])
    assert not batch_runner.takes_batches(Registry(), [item("a")])


async def test_no_def_handler_waits_for_a_thread_while_its_time_runs() -> None:
    together = threading.Barrier(50)

    def meet(event: Event, context: Context) -> None:
        together.wait(10)

    registry, items = registry_of(meet), [item(f"e{n}") for n in range(together.parties)]
    outcomes = await batch_runner.run_async(registry, items, no_trace)
    assert {outcome.verdict for outcome in outcomes} == {"done"}
