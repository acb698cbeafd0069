"""What is told of handlers that run past their timeout, or block their loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from flybridge.handlers import Context, Registry
from flybridge.handlers.registry import Registration
from flybridge.workers.run.watch import OVERRUN_AFTER, Watch

TYPE = "im.message.receive_v1"


@pytest.fixture
def watch() -> Watch:
    """That looks only when told to."""
    watch = Watch()
    watch._started = True
    return watch


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def registration() -> Registration:
    return Registry().register(lambda event, context: None, TYPE, name="h", timeout=2)


def context(since: float) -> Context:
    return Context(3, 5, since + 2, "ev", TYPE, "h")


def told(lines: list[Any]) -> list[Any]:
    return [(line["event"], line["handler"], line["seconds"]) for line in lines]


def test_who_runs_past_its_timeout_is_told_of_once_and_when_it_has_ended(
    watch: Watch, registration: Registration, lines: list[Any]
) -> None:
    begun = time.monotonic() - 4
    call = watch.begin(registration, None, context(begun))
    watch.look(begun + 2 + OVERRUN_AFTER / 2)
    assert lines == []
    watch.look(begun + 3.5)
    watch.look(begun + 3.6)
    assert told(lines) == [("handler.overrun", "h", 3.5)]
    assert (lines[0]["event_id"], lines[0]["attempt"], lines[0]["timeout"]) == ("ev", 3, 2)
    watch.calls.discard(call)
    watch.ended(call, returned=True)
    assert told(lines[1:]) == [("handler.late", "h", 4.0)]
    assert lines[1]["kept"]
    assert watch.counts.overruns == 1


@pytest.mark.parametrize(
    ("ago", "returned", "expected"),
    [(1.0, True, 0), (2.01, True, 0), (2.5, True, 1), (2.5, False, 0)],
)
def test_a_success_after_the_timeout_is_told_of_and_no_other_end(
    watch: Watch, registration: Registration, lines: list[Any],
    ago: float, returned: bool, expected: int,
) -> None:  # fmt: skip
    call = watch.begin(registration, None, context(time.monotonic() - ago))
    watch.calls.discard(call)
    watch.ended(call, returned=returned)
    assert [line["event"] for line in lines] == ["handler.late"] * expected


async def test_who_blocks_the_loop_is_named_with_the_place(
    watch: Watch, registration: Registration, lines: list[Any]
) -> None:
    now = time.monotonic()
    other = Registry().register(lambda event, context: None, TYPE, name="other")
    watch.begin(other, None, context(now), asyncio.create_task(asyncio.sleep(0)))
    watch.begin(registration, None, context(now), asyncio.current_task())
    watch.look(now)
    watch.look(now + 0.5)
    assert lines == []
    watch.look(now + 1.5)
    watch.look(now + 2.0)
    assert told(lines) == [("loop.blocked", "h", 1.5)]
    assert "test_watch.py:" in lines[0]["at"] or "watch.py:" in lines[0]["at"]
    assert watch.counts.blocked == 1


async def test_a_loop_that_answers_is_not_blocked(
    watch: Watch, registration: Registration, lines: list[Any]
) -> None:
    now = time.monotonic()
    watch.begin(registration, None, context(now), asyncio.current_task())
    for seconds in range(5):
        watch.look(now + 0.3 * seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert lines == []
