"""Promise 2, for the worker: no death of a process loses an event or has it recorded twice."""

from __future__ import annotations

import time

import psutil

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

EVENT_LEASE = 2.0
"""Seconds; what the stage tells every worker."""

TAKE_OVER = EVENT_LEASE + 5.0
"""Seconds from a worker's death until another one runs what it held."""


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_an_event_whose_child_was_killed_runs_again_and_counts_once(stage: Stage) -> None:
    worker = await stage.bridge_and_worker()

    (event_id,) = stage.push(message("crash 1"))

    await stage.settled([event_id])
    assert [deed["attempt"] for deed in stage.deeds("started")] == [1, 2]
    assert stage.counted() == {event_id: 1}
    assert stage.state(event_id) == "done"
    assert worker.process.poll() is None


async def test_a_killed_worker_takes_its_children_along_and_another_runs_its_events(
    stage: Stage,
) -> None:
    worker = await stage.bridge_and_worker()
    (event_id,) = stage.push(message("stuck 1"))
    await eventually(lambda: stage.deeds("started"))
    children = worker.children()
    assert stage.deeds("started")[0]["pid"] in children
    await stage.ready_worker("worker-2")

    worker.kill()
    killed = time.time()

    await eventually(lambda: not any(map(alive, children)), within=1.0)
    await eventually(lambda: len(stage.deeds("started")) == 2, within=TAKE_OVER)
    assert stage.deeds("started")[1]["time"] - killed < TAKE_OVER
    await stage.settled([event_id])
    assert [deed["attempt"] for deed in stage.deeds("started")] == [1, 2]
    assert stage.counted() == {event_id: 1}


async def test_an_event_that_kills_every_child_becomes_a_dead_letter_while_others_flow(
    stage: Stage,
) -> None:
    await stage.bridge_and_worker()

    (poison,) = stage.push(sample("im.message.recalled_v1"))
    await eventually(lambda: stage.deeds("started", handler="poison"))
    others = stage.push(*(message() for _ in range(20)))
    await eventually(lambda: all(stage.state(event_id) == "done" for event_id in others))
    assert stage.state(poison) != "dead"

    await stage.settled([poison, *others])
    (letter,) = stage.dead_letters()
    assert (letter["event_id"], letter["reason"]) == (poison, "crash_loop")
    assert len(stage.deeds("started", handler="poison")) == 2
    assert stage.counted() == dict.fromkeys(others, 1)
