"""A worker that is told to stop ends what runs, and leaves the rest to others as untouched."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET
from flybridge.bridge.process.signals import EXIT_HURRIED, SAME_SIGNAL
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

SERVICE = Path(__file__).with_name("building.py")
"""A bridge and a worker in one process."""

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


@pytest.mark.parametrize("pool", ["prefork", "solo", "asyncio", "inline"])
async def test_a_second_signal_ends_a_process_within_2_s_and_charges_no_attempt(
    stage: Stage, pool: str
) -> None:
    if pool == "inline":
        (stage.directory / "service.yaml").write_text(
            f"Feishu: {{AppId: {APP_ID}, AppSecret: {APP_SECRET}}}"
        )
        told = {"app_id": "", "app_secret": ""}
        worker = stage.run("service", sys.executable, str(SERVICE), **told)
        await worker.logged("feishu.connected")
    else:
        worker = await stage.bridge_and_worker("--pool", pool)
    (event_id,) = stage.push(message("slow 30"))
    await eventually(lambda: stage.deeds("started"))

    worker.send(signal.SIGINT)
    stopping = await worker.logged("process.stopping")
    assert "2 s" in stopping["hint"]
    assert event_id in stopping["waits_for"]
    # A signal sooner than this is the same ^C, which has come by another way.
    await asyncio.sleep(SAME_SIGNAL)
    told_again = time.monotonic()
    worker.send(signal.SIGTERM)

    assert await worker.ended(within=2.0) == EXIT_HURRIED
    assert time.monotonic() - told_again < 2.0
    assert len(worker.lines("process.hurried")) == 1
    assert "Traceback" not in worker.log.read_text()
    with stage.redis() as redis:
        state, attempts = redis.hmget(stage.keys.state("workers", event_id), "state", "attempts")
    assert (state, attempts) == (b"retry", b"0")
    assert stage.dead_letters() == []
