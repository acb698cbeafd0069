"""Handlers come and go while workers run: in every worker, in every child, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

TYPE = "vc.meeting.meeting_started_v1"
"""`acting` has no handler for it."""

LATE = """
import time
from acting import note
from flybridge.handlers import handles

@handles("{type}", backoff=0.1, **{options})
{kind}def late(event, context):
    time.sleep(0.05)
    note("finished", "late", event, context)
"""


class Operator:
    """Runs `flybridge handlers …` and keeps what it said."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._count = 0

    def writes(self, module: str, code: str) -> None:
        (self._stage.directory / f"{module}.py").write_text(code)

    async def does(self, *words: str, **settings: Any) -> tuple[int, str]:
        """The exit code, and what was printed."""
        self._count += 1
        actor = self._stage.start(f"operator-{self._count}", "handlers", *words, **settings)
        code = await actor.ended()
        return code, actor.log.read_text()


def late(kind: str = "", event_type: str = TYPE, **options: Any) -> str:
    return LATE.format(kind=kind, type=event_type, options=repr(options))


async def both_workers(stage: Stage) -> tuple[Actor, Actor]:
    """One with two processes, one with threads."""
    prefork = stage.worker("prefork", "--concurrency", "2")
    threads = stage.worker("threads", "--pool", "threads", "--concurrency", "2")
    await stage.leader()
    for worker in (prefork, threads):
        await worker.logged("intake.started")
    return prefork, threads


ONCE = """
import os
from pathlib import Path

try:
    with open(Path(__file__).with_suffix(".lock"), "x"):  # as a port that is bound
        pass
except FileExistsError:
    {at_once}
"""


@pytest.mark.parametrize("at_once", ["raise", "os._exit(3)"])
async def test_a_module_that_children_cannot_import_costs_no_event_its_life(
    stage: Stage, at_once: str
) -> None:
    worker = await stage.bridge_and_worker("--concurrency", "2")
    before = set(worker.children())
    operator = Operator(stage)
    operator.writes("late_once", ONCE.format(at_once=at_once) + late())
    code, said = await operator.does("register", "late_once")
    assert (code, said.count("registered late_once:late")) == (0, 1), said

    # The children that were there end; those that take their place have the handler.
    event_ids = stage.push(*(sample(TYPE) for _ in range(4)), *(message() for _ in range(4)))
    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}
    assert stage.dead_letters() == []
    assert before - set(worker.children())
    assert bool(worker.lines("change.failed")) == (at_once == "raise")


async def test_a_handler_registered_while_events_flow_runs_in_every_process(stage: Stage) -> None:
    prefork, threads = await both_workers(stage)
    operator = Operator(stage)
    await stage.settled(stage.push(*(sample(TYPE) for _ in range(8))))
    assert not stage.deeds(handler="late")

    operator.writes("late_play", late())
    code, said = await operator.does("register", "late_play")
    assert (code, said.count("registered late_play:late")) == (0, 2), said
    pids: set[int] = set()
    after: list[str] = []

    def ran_everywhere() -> bool:
        done = stage.deeds(handler="late")
        # Slow ones, a few at once: or one process would do it all.
        if len(done) == len(after):
            after.extend(stage.push(*(sample(TYPE) for _ in range(8))))
        pids.update(deed["pid"] for deed in done)
        return pids >= {*prefork.children(), threads.pid}

    await eventually(ran_everywhere)
    await stage.settled(after)
    assert stage.counted() == dict.fromkeys(after, 1)
    _, listed = await operator.does("list")
    assert "late_play:late" in listed
    assert "2/2" in listed

    code, said = await operator.does("unregister", "late_play:late")
    assert (code, said.count("unregistered late_play:late")) == (0, 2), said
    handled = len(stage.deeds(handler="late"))
    await stage.settled(stage.push(*(sample(TYPE) for _ in range(8))))
    assert len(stage.deeds(handler="late")) == handled

    assert (await operator.does("register", "late_play"))[0] == 0
    again = stage.push(*(sample(TYPE) for _ in range(8)))
    await stage.settled(again)
    counted = stage.counted()
    assert {counted[event_id] for event_id in again} == {1}


async def test_what_cannot_be_registered_is_refused_and_changes_nothing(stage: Stage) -> None:
    workers = await both_workers(stage)
    operator = Operator(stage)
    operator.writes("late_half", late() + "\n1 / 0\n")
    operator.writes("late_queue", late(queue="vip"))

    mistakes = {
        ("register", "late_half"): "ZeroDivisionError",
        ("register", "late_queue"): "wants queue 'vip'",
        ("unregister", "nobody"): "no handler is named 'nobody'",
    }
    ended = await asyncio.gather(*(operator.does(*words) for words in mistakes))
    for (code, said), why in zip(ended, mistakes.values(), strict=True):
        assert (code, said.count(why)) == (1, 2), said
        assert "2 of 2 workers refused" in said

    _, listed = await operator.does("list", "--json")
    answers = json.loads(listed)
    assert len(answers) == 2
    for answer in answers.values():
        assert answer["revision"] == 0
        assert not [each for each in answer["handlers"] if each["name"].startswith("late")]
    ids = stage.push(message(), sample(TYPE))
    await stage.settled(ids)
    assert stage.counted() == {ids[0]: 1}
    assert all(worker.process.poll() is None for worker in workers)


async def test_another_group_on_the_same_redis_does_not_hear_of_it(stage: Stage) -> None:
    await stage.bridge_and_worker("--pool", "threads", "--concurrency", "1", "--name", "same@host")
    await stage.ready_worker(
        "audit", "--pool", "threads", "--concurrency", "1", "--name", "same@host", group="audit"
    )
    operator = Operator(stage)
    operator.writes("late_play", late("async "))

    code, said = await operator.does("register", "late_play")
    assert (code, said.count("registered")) == (0, 1), said
    (_, listed), (code, said) = await asyncio.gather(
        operator.does("list", group="audit"), operator.does("list", group="nobody")
    )
    assert "late_play" not in listed
    assert "act" in listed
    assert (code, "no worker of app" in said) == (1, True), said
