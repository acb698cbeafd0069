"""Redis is there, and nothing says that it cannot be reached: no call waits for ever."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.behind import Diary, Pair, pair_behind_proxies
from tests.scenarios.stage import time_of
from tests.waiting import eventually

STUCK = 6.0
"""Seconds after which a worker has given up a silent connection: its socket timeout and some."""

STRANDED = 20.0
"""Seconds after which a worker has given up all of them, one after the other."""

FEISHU_WAITS = 3.0
"""Seconds for an ack."""


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair_behind_proxies(tmp_path) as pair:
        pair.push_some()
        await pair.all_settled()
        yield pair


async def test_a_leader_in_a_black_hole_lets_go_of_feishu_before_another_may_lead(
    pair: Pair,
) -> None:
    standby = pair.stage.bridge("bridge-2")
    await standby.logged("bridge.started")
    (stale,) = pair.stage.feishu.connections

    pair.bridge_proxy.black_hole()
    pair.push_some()
    await eventually(lambda: stale not in pair.stage.feishu.connections)
    acquired = await standby.logged("lease.acquired")
    aborted = await pair.bridge.logged("feishu.aborted")
    assert time_of(aborted) < time_of(acquired)
    pair.push_some()
    await pair.all_settled()

    pair.bridge_proxy.pass_on()
    answered = pair.bridge_proxy.commands["EVALSHA lease"]
    await eventually(lambda: pair.bridge_proxy.commands["EVALSHA lease"] > answered + 1)
    pair.push_some()
    await pair.all_settled(STUCK)
    assert not standby.lines("lease.lost")


async def test_a_worker_in_a_black_hole_goes_on_where_it_was(pair: Pair) -> None:
    diary = Diary(pair.worker)
    pair.push("slow 0.5")
    pair.worker_proxy.black_hole()
    pair.push_some()
    await eventually(lambda: "redis.lost" in diary.told("flybridge.workers"), within=2 * STUCK)

    pair.worker_proxy.pass_on()
    await pair.all_settled(STUCK)
    await eventually(lambda: diary.told("flybridge.workers") == ["redis.lost", "redis.recovered"])


async def test_stranded_connections_are_given_up_for_new_ones(pair: Pair) -> None:
    pair.push("slow 0.5")
    for proxy in pair.proxies:
        proxy.strand()
    since = time.monotonic()
    pushes = pair.push_some()
    await eventually(lambda: all(push.acked for push in pushes))
    assert time.monotonic() - since < FEISHU_WAITS
    await pair.all_settled(STRANDED)
    assert not pair.bridge.lines("lease.lost", reason="fenced")
