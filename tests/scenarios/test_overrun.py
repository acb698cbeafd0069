"""Handlers that do not end in time: no attempt runs beside another, and nobody else suffers."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.stage import Stage
from tests.waiting import eventually

PROGRAM = str(Path(__file__).with_name("inline_actor.py"))

KINDS = ("def", "async", "blocking", "stubborn", "batch", "after_batch", "alone", "keyed")
HEALTHY = {"def": 2, "async": 1, "blocking": 1, "stubborn": 2, "batch": 1, "after_batch": 1,
           "alone": 0, "keyed": 1}  # fmt: skip
"""Kind of a mixture in `hanging.py` -> how many healthy handlers are in it."""

WITHIN = 40.0
"""Seconds: each attempt has to be waited for, and there are few processes."""

_numbers = count()


def pushed(stage: Stage, kind: str, seconds: float) -> str:
    """An event whose hanging handler takes so many seconds; 0: it never ends."""
    header = {
        "event_id": f"{kind}-{next(_numbers)}",
        "event_type": f"chat.{kind}",
        "app_id": "cli_x",
        "tenant_key": "t",
        "create_time": str(int(time.time() * 1000)),
    }
    body = {"seconds": seconds, "key": "k" if kind == "keyed" else ""}
    envelope: dict[str, Any] = {"schema": "2.0", "header": header, "event": body}
    return stage.feishu.push(json.dumps(envelope).encode()).event_id


@pytest.mark.parametrize("mode", ["at_once", "in_order", "surrounded"])
async def test_in_prefork_who_hangs_costs_its_process_and_nobody_else_anything(
    stage: Stage, mode: str
) -> None:
    worker = await stage.bridge_and_worker(
        "--concurrency", "4",
        handlers="hanging",
        parallel_handlers=mode != "in_order",
        **({"SURROUNDED": "1"} if mode == "surrounded" else {}),
    )  # fmt: skip
    event_ids = {pushed(stage, kind, 0): kind for kind in (*KINDS, "keyed")}

    await stage.settled(list(event_ids), WITHIN)

    assert stage.deeds("overlapped") == []
    assert stage.states(list(event_ids)).keys() == {"dead"}
    assert {letter["reason"] for letter in stage.dead_letters()} == {"crash_loop"}
    assert {letter["handler"] for letter in stage.dead_letters()} == {
        "hang", "hang_in_line", "block", "endure", "hang_with_all"
    }  # fmt: skip
    finished = stage.counted()
    assert {each: finished[each] for each in event_ids} == {
        each: HEALTHY[kind] for each, kind in event_ids.items()
    }
    assert worker.lines("handler.overrun") == []
    assert len(worker.lines("handler.killed")) >= 2 * len(event_ids)


@pytest.mark.parametrize("pool", ["threads", "asyncio", "solo"])
async def test_elsewhere_who_hangs_is_waited_for_and_keeps_what_it_achieves(
    stage: Stage, pool: str
) -> None:
    worker = await stage.bridge_and_worker(
        "--pool", pool, "--concurrency", "1" if pool == "solo" else "20", handlers="hanging"
    )
    # One at a time takes long; there, it is enough to see that nothing is lost by it.
    kinds = ("stubborn", "blocking", "keyed", "keyed") if pool == "solo" else (*KINDS, "keyed")
    event_ids = {pushed(stage, kind, 1.7): kind for kind in kinds}

    await stage.settled(list(event_ids), WITHIN)

    assert stage.deeds("overlapped") == []
    assert stage.states(list(event_ids)) == Counter(done=len(event_ids))
    assert {deed["attempt"] for deed in stage.deeds()} == {1}
    assert len(stage.deeds("finished")) == sum(1 + HEALTHY[kind] for kind in event_ids.values())
    told = {line["handler"] for line in worker.lines("handler.overrun")}
    assert told >= {"hang_in_line", "block", "endure"}
    assert {line["handler"] for line in worker.lines("loop.blocked")} == {"block"}


@pytest.mark.parametrize("pool", ["asyncio", "inline"])
async def test_what_waits_behind_a_coroutine_that_blocks_the_loop_goes_to_another_worker(
    stage: Stage, pool: str
) -> None:
    """In the other pools no more is claimed than the slots take."""
    await stage.leader(handlers="hanging")
    if pool == "inline":
        blocked = stage.run("blocked", sys.executable, PROGRAM, handlers="hanging")
        await blocked.logged("inline.started")
    else:
        blocked = await stage.ready_worker("blocked", "--pool", pool, handlers="hanging")
    pushed(stage, "blocking", 60)
    await eventually(lambda: stage.deeds("started", handler="block"))
    event_ids = [pushed(stage, "quick", 0) for _ in range(20)]
    await eventually(lambda: stage.pending("chat.quick") > 0)

    await stage.ready_worker("other", "--concurrency", "1", handlers="hanging")

    await eventually(lambda: stage.states(event_ids) == Counter(done=20))
    deeds = [deed for deed in stage.deeds() if deed["event_id"] in event_ids]
    assert {deed["attempt"] for deed in deeds} == {1}
    assert len(deeds) == 2 * len(event_ids)
    assert [line["handler"] for line in blocked.lines("loop.blocked")] == ["block"]
