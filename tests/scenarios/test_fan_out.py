"""Every consumer group gets every event, and handles it once."""

from __future__ import annotations

from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


async def test_two_groups_each_handle_every_event_once(stage: Stage) -> None:
    await stage.bridge_and_worker()
    await stage.ready_worker("auditor", "--concurrency", "1", "--group", "audit")

    event_ids = stage.push(*(message() for _ in range(20)))

    await stage.settled(event_ids)
    await eventually(lambda: stage.unsettled("audit") == 0)
    assert stage.counted() == dict.fromkeys(event_ids, 2)
    for group in ("workers", "audit"):
        assert {stage.state(event_id, group) for event_id in event_ids} == {"done"}
