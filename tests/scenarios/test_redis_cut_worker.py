"""Promise 2, for Redis: what it lets go of, a worker takes up again by itself."""

from __future__ import annotations

import pytest

from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually


async def busy(stage: Stage, *arguments: str) -> tuple[Actor, list[str]]:
    """A worker in the middle of slow handlers, more of them in its hands; all event ids."""
    worker = await stage.bridge_and_worker(*arguments)
    # Fast handlers make a worker read ahead; one that is not quite keeps them out of bundles.
    fast = ["slow 0.1", *["hello"] * 200]
    event_ids = stage.push(*map(message, [*fast, *["slow 0.2"] * 24]))
    await eventually(lambda: len(stage.deeds("started")) > len(fast))
    assert stage.pending() > 4
    return worker, event_ids


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
async def test_connections_cut_while_handlers_run_lose_and_double_nothing(
    stage: Stage, pool: str
) -> None:
    worker, event_ids = await busy(stage, "--pool", pool, "--concurrency", "2")

    for _ in range(3):
        done = len(stage.deeds("finished"))
        with stage.redis() as redis:
            for kind in ("normal", "pubsub"):
                redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await eventually(lambda done=done: len(stage.deeds("finished")) >= done + 2)

    later = stage.push(message())
    await stage.settled([*event_ids, *later])
    assert stage.counted() == dict.fromkeys([*event_ids, *later], 1)
    assert worker.process.poll() is None


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_handlers_that_end_while_redis_is_away_lose_and_double_nothing(
    stage: Stage, pool: str
) -> None:
    worker, event_ids = await busy(stage, "--pool", pool, "--concurrency", "2")

    done = len(stage.deeds("finished"))
    stage.redis_server.stop()
    await eventually(lambda: len(stage.deeds("finished")) >= done + 2)
    stage.redis_server.start()

    later = stage.push(message())
    await stage.settled([*event_ids, *later])
    assert stage.counted() == dict.fromkeys([*event_ids, *later], 1)
    assert worker.process.poll() is None


async def test_after_a_flush_the_worker_goes_on_with_new_events(stage: Stage) -> None:
    worker = await stage.bridge_and_worker()
    await stage.settled(stage.push(message()))

    with stage.redis() as redis:
        redis.flushall()

    later = stage.push(*(message() for _ in range(5)))
    await stage.settled(later)
    assert [stage.counted()[event_id] for event_id in later] == [1] * 5
    assert worker.process.poll() is None
