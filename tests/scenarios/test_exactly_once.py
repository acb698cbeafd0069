"""Promise 3: each handler's success is recorded at most once per event, however often it comes."""

from __future__ import annotations

from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


async def test_one_event_pushed_a_hundred_times_to_two_workers_runs_once(stage: Stage) -> None:
    await stage.leader()
    await stage.ready_worker("worker-1")
    await stage.ready_worker("worker-2")
    envelope = message()

    pushes = [stage.feishu.push(envelope) for _ in range(100)]

    await eventually(lambda: all(push.acked for push in pushes))
    event_id = envelope["header"]["event_id"]
    await stage.settled([event_id])
    assert stage.counted() == {event_id: 1}
    assert len(stage.entries()) == 1
