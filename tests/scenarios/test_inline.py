"""The inline worker in processes of its own: what holds for Celery's workers holds for it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

PROGRAM = str(Path(__file__).with_name("inline_actor.py"))

TAKE_OVER = 7.0
"""Seconds from a worker's death until another one runs what it held; see test_worker_killed.py."""

REACTION = "im.message.reaction.created_v1"
"""`acting.react` awaits 0.1 s for each of them."""


async def inline(stage: Stage, name: str) -> Actor:
    """A program with an inline worker that has started."""
    actor = stage.run(name, sys.executable, PROGRAM)
    await actor.logged("inline.started")
    return actor


async def test_what_a_killed_program_held_runs_in_another_and_counts_once(stage: Stage) -> None:
    first, _ = await asyncio.gather(inline(stage, "inline-1"), stage.leader())
    (event_id,) = stage.push(message("stuck 1"))
    await eventually(lambda: stage.deeds("started"))
    await inline(stage, "inline-2")

    first.kill()
    killed = time.time()

    await eventually(lambda: len(stage.deeds("started")) == 2, within=TAKE_OVER)
    assert stage.deeds("started")[1]["time"] - killed < TAKE_OVER
    await stage.settled([event_id])
    assert [deed["attempt"] for deed in stage.deeds("started")] == [1, 2]
    assert stage.counted() == {event_id: 1}


async def test_told_to_stop_it_ends_what_it_has_begun_and_leaves_the_rest(stage: Stage) -> None:
    first, _ = await asyncio.gather(inline(stage, "inline-1"), stage.leader())
    event_ids = stage.push(*(message("slow 0.5") for _ in range(3)), sample(REACTION))
    await eventually(lambda: len(stage.deeds("started")) == 4)

    first.send(signal.SIGTERM)

    assert await first.ended(within=5.0) == 0
    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}
    assert not [each for each in stage.consumers(REACTION) if each["name"] != b"left"]
    late = stage.push(message())
    second = await inline(stage, "inline-2")
    await stage.settled(late)
    assert stage.deeds("finished", event_id=late[0])[0]["pid"] == second.pid


async def test_beside_a_celery_worker_each_event_is_handled_once(stage: Stage) -> None:
    program, *_ = await asyncio.gather(
        inline(stage, "inline-1"), stage.bridge_and_worker("--pool", "threads")
    )

    event_ids = stage.push(
        *(sample(REACTION) for _ in range(150)), *(message("slow 0.05") for _ in range(150))
    )

    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}
    pids = {deed["pid"] for deed in stage.deeds("finished")}
    assert program.pid in pids
    assert len(pids) == 2


async def test_an_event_that_kills_its_program_runs_alone_and_becomes_a_dead_letter(
    stage: Stage,
) -> None:
    program, _ = await asyncio.gather(inline(stage, "inline-1"), stage.leader())

    poison, innocent = stage.push(sample("im.message.recalled_v1"), message("slow 1"))
    for number in (2, 3):
        assert await program.ended() == -signal.SIGKILL
        program = await inline(stage, f"inline-{number}")

    await stage.settled([poison, innocent])
    (letter,) = stage.dead_letters()
    assert (letter["event_id"], letter["reason"]) == (poison, "crash_loop")
    assert len(stage.deeds("started", handler="poison")) == 2
    assert stage.state(innocent) == "done"
    assert program.process.poll() is None
