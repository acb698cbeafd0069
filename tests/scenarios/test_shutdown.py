"""A worker that is told to stop ends what runs, and leaves the rest to others as untouched."""

from __future__ import annotations

import signal
import time

import pytest

from tests.scenarios.stage import Stage, eventually, message

SOON = 2.0
"""Seconds until another worker has what the leaving one had not started."""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_running_handlers_finish_and_the_rest_goes_to_another_worker_untried(
    stage: Stage, pool: str
) -> None:
    worker = await stage.bridge_and_worker("--pool", pool, "--concurrency", "2")
    # Fast ones make the worker read ahead; one that is not quite keeps them out of bundles.
    fast = ["slow 0.1", *["hello"] * 200]
    event_ids = stage.push(*map(message, [*fast, *["slow 3"] * 12]))
    slow = set(event_ids[len(fast) :])
    await eventually(lambda: len(stage.deeds("started")) > len(fast))
    assert stage.pending() > 4
    other = await stage.ready_worker("worker-2", "--pool", "threads", "--concurrency", "16")

    worker.send(signal.SIGTERM)
    told = time.time()

    assert await worker.ended() == 0
    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert stage.counted("started") == dict.fromkeys(event_ids, 1)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}
    handed = [deed for deed in stage.deeds("started", pid=other.pid) if deed["event_id"] in slow]
    assert handed
    assert max(deed["time"] for deed in handed) - told < SOON
    names = [each["name"].decode() for each in stage.consumers("im.message.receive_v1")]
    assert not [name for name in names if f".{worker.pid}." in name]
    assert [name for name in names if f".{other.pid}." in name]


async def test_an_idle_worker_ends_within_seconds_and_leaves_its_groups(stage: Stage) -> None:
    worker = await stage.bridge_and_worker()
    await stage.settled(stage.push(message()))

    worker.send(signal.SIGTERM)

    assert await worker.ended(within=5.0) == 0
    assert stage.consumers("im.message.receive_v1") == []
