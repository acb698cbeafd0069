from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flybridge.bridge.local.feishu.control import LocalControl, LocalFeishuRefused
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.handlers.samples import sample

TYPE = "im.message.receive_v1"


@pytest.fixture
async def feishu() -> AsyncIterator[LocalFeishu]:
    async with LocalFeishu(clock_scale=1000) as running:
        yield running


async def test_events_are_pushed_and_waited_for(feishu: LocalFeishu, connected: Any) -> None:
    control = LocalControl(feishu.url)
    async with connected(feishu.url) as client:
        reader = asyncio.create_task(client.ack_all())
        ids = await asyncio.to_thread(control.push, sample(TYPE), count=3)
        await asyncio.to_thread(control.wait_acked, ids, 5)
        status = await asyncio.to_thread(control.status)
        reader.cancel()

    assert len(set(ids)) == 3
    assert (status["owed"], status["stats"]["acked"]) == (0, 3)
    assert [each["pushes"] for each in status["connections"]] == [3]


async def test_one_event_keeps_the_id_it_was_given(feishu: LocalFeishu) -> None:
    control = LocalControl(feishu.url)
    ids = await asyncio.to_thread(control.push, sample("approval_instance", event_id="e1"))
    event = await asyncio.to_thread(control.event, "e1")

    assert ids == ["e1"]
    assert event["state"] == "owed"
    assert event["event_type"] == "approval_instance"


async def test_waiting_ends_with_the_timeout(feishu: LocalFeishu) -> None:
    control = LocalControl(feishu.url)
    ids = await asyncio.to_thread(control.push, sample(TYPE))
    with pytest.raises(TimeoutError, match="1 events are not acked"):
        await asyncio.to_thread(control.wait_acked, ids, 0.1)


async def test_waiting_ends_when_an_event_was_given_up(feishu: LocalFeishu, connected: Any) -> None:
    control = LocalControl(feishu.url)
    async with connected(feishu.url) as client:
        ids = await asyncio.to_thread(control.push, sample("card.action.trigger"))
        await client.ack(await client.receive(), 500)
        with pytest.raises(TimeoutError, match="given up"):
            await asyncio.to_thread(control.wait_acked, ids, 30)


async def test_faults_are_asked_for_by_name(feishu: LocalFeishu, discover: Any) -> None:
    control = LocalControl(feishu.url)
    armed = await asyncio.to_thread(control.fault, "refuse_discovery", code=1, times=2)

    assert armed == {"refuse_discovery": 2}
    assert (await discover(feishu.url))[1]["code"] == 1


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("drop_ack", {}, "drop_acks"),
        ("freeze", {"duration": 1}, "seconds"),
        ("drop_acks", {"times": 0}, "1 or more"),
    ],
)
async def test_a_wrong_fault_is_refused_with_a_sentence(
    feishu: LocalFeishu, name: str, options: dict[str, Any], sentence: str
) -> None:
    control = LocalControl(feishu.url)
    with pytest.raises(LocalFeishuRefused, match=sentence):
        await asyncio.to_thread(control.fault, name, **options)


async def test_unknown_events_are_refused(feishu: LocalFeishu) -> None:
    control = LocalControl(feishu.url)
    with pytest.raises(LocalFeishuRefused, match="no such event"):
        await asyncio.to_thread(control.event, "nope")
    with pytest.raises(LocalFeishuRefused, match="never pushed"):
        await asyncio.to_thread(control.wait_acked, ["nope"], 1)


def test_a_server_that_is_not_there_is_told_with_what_to_do() -> None:
    with pytest.raises(LocalFeishuRefused, match="flybridge dev"):
        LocalControl("http://127.0.0.1:1").status()
