"""Promise: a stream loses only what every group has acknowledged and what is past the retention."""

from __future__ import annotations

import time

from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

IM = "im.message.receive_v1"

RETENTION = 1.0
"""Seconds."""

TRIMMED = 10.0
"""Seconds until what may go is gone."""

BULK = 50_000
"""Bytes of an event that fills Redis."""


def length(stage: Stage) -> int:
    with stage.redis() as redis:
        return int(redis.xlen(stage.keys.stream(IM)))


def waits_for_retry(stage: Stage, event_id: str) -> bool:
    return stage.state(event_id) == "retry"


async def past_the_retention() -> None:
    since = time.monotonic()
    await eventually(lambda: time.monotonic() - since > 1.5 * RETENTION)


async def test_a_stream_keeps_what_waits_for_its_retry_and_nothing_that_is_done(
    stage: Stage,
) -> None:
    """But for the last entry, by which Redis knows how far the group is."""
    await stage.bridge_and_worker(retention=RETENTION)
    bridge = stage.actors[-1]
    before = stage.push(*(message() for _ in range(20)))
    await stage.settled(before)
    later, *after = stage.push(message("later 5"), *(message() for _ in range(5)))
    await eventually(lambda: waits_for_retry(stage, later))

    await eventually(lambda: length(stage) == 2, within=TRIMMED)
    await past_the_retention()
    assert waits_for_retry(stage, later)
    assert [entry["event_id"] for entry in stage.entries()] == [later, after[-1]]
    line = await bridge.logged("group.lagging", holds="retry")
    assert (line["event_id"], line["group"]) == (later, "workers")

    await stage.settled([later])
    await eventually(lambda: length(stage) == 0, within=TRIMMED)
    assert stage.counted() == dict.fromkeys([*before, later, *after], 1)


async def test_a_group_that_lags_holds_the_stream_and_is_told_of_until_it_is_destroyed(
    stage: Stage,
) -> None:
    stream = stage.keys.stream(IM)
    with stage.redis() as redis:
        redis.xgroup_create(stream, "audit", "0", mkstream=True)
        await stage.bridge_and_worker(retention=RETENTION)
        bridge = stage.actors[-1]
        event_ids = stage.push(*(message() for _ in range(10)))
        await stage.settled(event_ids)

        line = await bridge.logged("group.lagging", stream=stream, group="audit")
        assert (line["pending"], line["lag"]) == (0, 10)
        assert "flybridge groups forget audit" in line["cure"]
        assert length(stage) == 10

        # The worker's own group is lost meanwhile, made anew, and given all ten again.
        redis.xgroup_destroy(stream, "workers")
        await eventually(lambda: len(redis.xinfo_groups(stream)) == 2)
        await stage.settled(event_ids)
        assert length(stage) == 10

        redis.xgroup_destroy(stream, "audit")
    await eventually(lambda: length(stage) == 0, within=TRIMMED)
    assert len(bridge.lines("group.lagging", group="audit")) == 1
    assert stage.counted() == dict.fromkeys(event_ids, 1)


async def test_what_a_killed_worker_held_stays_until_another_has_done_it(stage: Stage) -> None:
    worker = await stage.bridge_and_worker(retention=RETENTION)
    (event_id,) = stage.push(message("stuck 1"))
    await eventually(lambda: stage.deeds("started"))

    worker.kill()
    await past_the_retention()
    assert [entry["event_id"] for entry in stage.entries()] == [event_id]

    await stage.ready_worker("worker-2")
    await stage.settled([event_id])
    await eventually(lambda: length(stage) == 0, within=TRIMMED)
    assert [deed["attempt"] for deed in stage.deeds("started")] == [1, 2]
    assert stage.counted() == {event_id: 1}


async def test_a_redis_full_of_what_is_done_makes_room_for_what_is_new(stage: Stage) -> None:
    """Although the retention has not ended: new events come first."""
    await stage.bridge_and_worker(retention=3600)
    bridge = stage.actors[-1]
    done = stage.push(*(message("hello " + "0" * BULK) for _ in range(100)))
    await stage.settled(done)
    assert length(stage) == 100

    with stage.redis() as redis:
        redis.config_set("maxmemory", redis.info("memory")["used_memory"])
    await bridge.logged("redis.full")
    await eventually(lambda: length(stage) == 0, within=TRIMMED)
    await bridge.logged("redis.relieved")

    new = stage.push(*(message() for _ in range(10)))
    await stage.settled(new)
    assert stage.counted() == dict.fromkeys([*done, *new], 1)
