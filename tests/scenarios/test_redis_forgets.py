"""A Redis without an append-only file is killed: what it held is lost, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.behind import Pair, pair_behind_proxies
from tests.waiting import eventually


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair_behind_proxies(tmp_path, append_only=False) as pair:
        yield pair


async def test_everyone_goes_on_with_an_empty_redis(pair: Pair) -> None:
    stage = pair.stage
    async with stage.traffic() as pushes:
        await eventually(lambda: len(stage.deeds("finished")) > 20)
        stage.redis_server.kill()
        known = {push.event_id for push in pushes if push.attempts}
        stage.redis_server.start()
        since = len(pushes)
        await eventually(lambda: len(stage.states([push.event_id for push in pushes])) > 1)
        await eventually(lambda: len(pushes) > since + 20)

    await eventually(lambda: all(push.acked for push in pushes))
    later = [push.event_id for push in pushes if push.event_id not in known]
    await stage.settled(later)
    counted = stage.counted()
    assert {each: counted[each] for each in later} == dict.fromkeys(later, 1)
    lost = known - counted.keys()
    assert len(lost) <= len(known) - 20
    assert {each for each in counted if counted[each] > 1} <= known
    pair.still_alive()
    assert pair.bridge.lines("lease.lost")
