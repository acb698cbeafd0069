"""Batches: handlers get many events at a time, and each event keeps an end of its own."""

from __future__ import annotations

from typing import Any

import pytest

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

SIZE = 50
"""Of `gathering.gather`, which makes three attempts."""


def calls(stage: Stage) -> list[dict[str, Any]]:
    return stage.deeds("called")


@pytest.mark.parametrize(
    "pool", [("prefork", "2"), ("threads", "4"), ("asyncio", "100")], ids=lambda pool: pool[0]
)
async def test_events_come_together_and_each_is_done_retried_or_given_up_by_itself(
    stage: Stage, pool: tuple[str, str]
) -> None:
    await stage.leader(handlers="gathering")
    good = stage.push(*(message() for _ in range(300)))
    failing = stage.push(*(message("fail 1") for _ in range(5)))
    rejected = stage.push(message("reject"))
    await stage.ready_worker(
        "worker-1", "--pool", pool[0], "--concurrency", pool[1], handlers="gathering"
    )

    await stage.settled([*good, *failing, *rejected])
    assert stage.counted() == dict.fromkeys([*good, *failing], 1)
    assert max(call["events"] for call in calls(stage)) == SIZE
    assert len(calls(stage)) < 40
    (letter,) = stage.dead_letters()
    assert (letter["event_id"], letter["reason"], letter["attempts"]) == (
        rejected[0],
        "rejected",
        "1",
    )


async def test_a_batch_that_does_not_fill_is_handed_over_when_its_time_is_up(stage: Stage) -> None:
    await stage.bridge_and_worker(handlers="gathering")
    event_ids = stage.push(*(message() for _ in range(7)))
    await stage.settled(event_ids)
    assert sum(call["events"] for call in calls(stage)) == 7
    assert len(calls(stage)) <= 3


async def test_what_kills_a_child_takes_nobody_of_its_batch_along(stage: Stage) -> None:
    worker = await stage.bridge_and_worker("--concurrency", "2", handlers="gathering")
    poison, *others = stage.push(
        message("crash 9"), *(message() for _ in range(SIZE - 1)), message("reject")
    )

    await stage.settled([poison, *others])
    reasons = {letter["event_id"]: letter["reason"] for letter in stage.dead_letters()}
    assert reasons == {poison: "crash_loop", others[-1]: "rejected"}
    assert stage.counted().keys() == set(others[:-1])
    assert stage.states(others[:-1]).keys() == {"done"}
    assert worker.process.poll() is None


async def test_a_limit_of_concurrency_counts_batches(stage: Stage) -> None:
    await stage.leader(handlers="gathering")
    event_ids = stage.push(*(sample("im.chat.updated_v1") for _ in range(SIZE * 4)))
    await stage.ready_worker(
        "worker-1", "--pool", "threads", "--concurrency", "4", handlers="gathering"
    )
    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    deeds = [each["deed"] for each in stage.deeds() if each["deed"] in {"began", "ended"}]
    assert deeds == ["began", "ended"] * (len(deeds) // 2)


async def test_events_that_gather_go_to_another_worker_when_theirs_stops(stage: Stage) -> None:
    worker = await stage.bridge_and_worker(handlers="gathering")
    first = stage.push(message())
    await stage.settled(first)
    event_ids = stage.push(*(message() for _ in range(30)))
    await eventually(lambda: stage.pending() or len(stage.counted()) > 1)

    worker.process.terminate()
    assert await worker.ended(within=5.0) == 0
    await stage.ready_worker("worker-2", handlers="gathering")
    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys([*first, *event_ids], 1)
    assert {attempt for call in calls(stage) for attempt in call["attempts"]} == {1}
