"""Every pool runs `def` and `async def` handlers alike, and `celery` starts the same worker."""

from __future__ import annotations

import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

CELERY = str(Path(sys.executable).with_name("celery"))
"""The console script of the environment that runs the tests."""

REACTION = "im.message.reaction.created_v1"
"""`acting.react` awaits 0.1 s for each of them."""

CROWD, EVENTS, HANDLERS = "vc.meeting.meeting_started_v1", 110, 10
"""As in `crowded`, whose handlers wait for each other."""

HANGING = "im.chat.disbanded_v1"
"""`crowded.hang` never ends."""


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "asyncio"])
async def test_def_and_async_handlers_run_once_each_in_every_pool(stage: Stage, pool: str) -> None:
    await stage.bridge_and_worker("--pool", pool, "--concurrency", "4")

    event_ids = stage.push(*(message() for _ in range(10)), *(sample(REACTION) for _ in range(10)))

    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert {deed["handler"] for deed in stage.deeds("finished")} == {"act", "react"}
    assert {deed["attempt"] for deed in stage.deeds()} == {1}


async def test_the_asyncio_pool_awaits_hundreds_of_handlers_at_once(stage: Stage) -> None:
    await stage.bridge_and_worker("--pool", "asyncio")

    event_ids = stage.push(*(sample(REACTION) for _ in range(300)))

    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    times = [deed["time"] for deed in stage.deeds()]
    assert max(times) - min(times) < 300 * 0.1 / 5


async def test_no_def_handler_of_the_asyncio_pool_waits_for_a_thread_while_its_time_runs(
    stage: Stage,
) -> None:
    slots = str(EVENTS)
    await stage.bridge_and_worker("--pool", "asyncio", "--concurrency", slots, handlers="crowded")

    event_ids = stage.push(*(sample(CROWD) for _ in range(EVENTS)))

    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, HANDLERS)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}


async def test_a_worker_of_the_asyncio_pool_ends_though_a_def_handler_does_not(
    stage: Stage,
) -> None:
    worker = await stage.bridge_and_worker("--pool", "asyncio", handlers="crowded")
    event_ids = stage.push(sample(HANGING))
    await eventually(lambda: len(stage.deeds()) == 1)

    worker.send(signal.SIGTERM)

    assert await worker.ended() == 0
    assert stage.states(event_ids).keys() == {"retry"}


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
async def test_a_coroutine_past_its_time_limit_is_cancelled_and_tried_again(
    stage: Stage, pool: str
) -> None:
    await stage.bridge_and_worker("--pool", pool, "--concurrency", "2")

    (event_id,) = stage.push(sample("im.message.message_read_v1"))

    await stage.settled([event_id])
    assert [(deed["deed"], deed["attempt"]) for deed in stage.deeds()] == [
        ("started", 1),
        ("cancelled", 1),
        ("started", 2),
        ("finished", 2),
    ]
    started, cancelled, *_ = (deed["time"] for deed in stage.deeds())
    assert 0.5 <= cancelled - started < 5


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
async def test_a_coroutine_that_an_operator_revokes_is_ended_and_its_event_buried(
    stage: Stage, pool: str
) -> None:
    worker = await stage.bridge_and_worker("--pool", pool, "--concurrency", "2")
    (event_id,) = stage.push(sample("im.chat.member.bot.added_v1"))
    await eventually(lambda: stage.deeds("started"))

    revoke = ("-A", "flybridge.workers.app", "control", "terminate", "SIGTERM", event_id)
    assert await stage.run("operator", CELERY, *revoke).ended() == 0

    await stage.settled([event_id])
    (letter,) = stage.dead_letters()
    assert (letter["event_id"], letter["reason"]) == (event_id, "revoked")
    (started,) = stage.deeds("started")
    if pool == "asyncio":
        await eventually(lambda: stage.deeds("cancelled"))
    else:
        await eventually(lambda: started["pid"] not in worker.children())


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "asyncio"])
async def test_an_exit_of_a_task_that_a_handler_started_fails_that_handler_only(
    stage: Stage, pool: str
) -> None:
    worker = await stage.bridge_and_worker("--pool", pool, "--concurrency", "1")

    exits = stage.push(*(sample("im.message.reaction.deleted_v1") for _ in range(3)))
    await stage.settled(exits)
    (fine,) = stage.push(message())
    await stage.settled([fine])

    assert {letter["reason"] for letter in stage.dead_letters()} == {"attempts"}
    started = Counter(deed["event_id"] for deed in stage.deeds("started", handler="leave"))
    assert started == dict.fromkeys(exits, 2)
    assert stage.counted() == {fine: 1}
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0


async def test_celery_starts_the_same_worker_for_the_queues_it_is_given(stage: Stage) -> None:
    worker = stage.run(
        "worker-1", CELERY, "-A", "flybridge.workers.app", "worker", "-Q", "im,contact", "-c", "2"
    )
    await stage.leader()
    await worker.logged("intake.started")
    of_im, of_contact, of_approval = stage.push(
        message(), sample("contact.user.created_v3"), sample("approval.instance.status_changed_v4")
    )

    # It has a handler for the first only.
    await eventually(lambda: [stage.state(of_im), stage.state(of_contact)] == ["done", "dead"])
    assert stage.counted() == {of_im: 1}
    other = await stage.ready_worker("worker-2", "--queues", "approval", "--concurrency", "1")

    await stage.settled([of_approval])
    await other.logged("event.unhandled", event_type="approval.instance.status_changed_v4")
    assert not worker.lines("event.unhandled", event_type="approval.instance.status_changed_v4")


@pytest.mark.parametrize("by_celery", [False, True])
async def test_an_unknown_queue_is_refused_by_name(stage: Stage, by_celery: bool) -> None:
    if by_celery:
        worker = stage.run("worker-1", CELERY, "-A", "flybridge.workers.app", "worker", "-Q", "imm")
    else:
        worker = stage.worker("worker-1", "--queues", "imm")

    assert await worker.ended() != 0
    assert re.search(r"\bimm\b", worker.log.read_text())
    assert not worker.lines("intake.started")
