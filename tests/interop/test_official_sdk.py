"""The official SDK is the oracle of the local Feishu: what it understands is the real protocol."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.handlers.samples import sample

pytestmark = pytest.mark.interop
TYPE = "im.message.receive_v1"


async def test_events_of_both_schemas_arrive_and_are_acked(sdk: Any) -> None:
    async with LocalFeishu() as feishu, sdk(feishu) as client:
        for name, event_id in ((TYPE, "e2"), ("approval_instance", "e1")):
            push = feishu.push(sample(name, event_id=event_id))
            assert (await client.told("event_id"))["event_id"] == event_id
            assert await push.wait(10)
            assert push.attempts[-1].code == 200
            assert push.attempts[-1].biz_rt is not None
            assert push.attempts[-1].biz_rt.isdigit()


async def test_a_200_kb_event_arrives_whole(sdk: Any) -> None:
    text = "x" * 200_000 + "the end"
    async with LocalFeishu() as feishu, sdk(feishu) as client:
        push = feishu.push(sample(TYPE, overrides={"message.content": text}))
        told = await client.told("event_id")
        assert told["length"] == len(json.dumps({"text": text}))
        assert told["end"].endswith('the end"}')
        assert await push.wait(10)


async def test_a_failing_handler_is_a_500_and_a_re_push(sdk: Any) -> None:
    # A rung of 15 s passes in 0.15 s, and the second of 5 min in 3 s.
    async with LocalFeishu(clock_scale=100) as feishu, sdk(feishu, fail_times=2) as client:
        await client.connected()
        push = feishu.push(sample(TYPE))
        ids = [(await client.told("event_id"))["event_id"] for _ in range(3)]
        assert await push.wait(10)

    assert ids == [push.event_id] * 3, "the event id survives a re-push"
    assert [attempt.code for attempt in push.attempts] == [500, 500, 200]


async def test_a_card_callback_is_answered_in_its_ack(sdk: Any) -> None:
    async with LocalFeishu() as feishu, sdk(feishu) as client:
        await client.connected()
        push = feishu.push(sample("card.action.trigger"))
        assert await push.wait(10)

    answer = json.loads(base64.b64decode(json.loads(push.attempts[-1].ack)["data"]))
    assert answer["toast"] == {"type": "success", "content": "ok"}


async def test_the_config_of_a_pong_is_applied(sdk: Any) -> None:
    async with LocalFeishu(config={"PingInterval": 1}) as feishu, sdk(feishu) as client:
        await client.connected()
        feishu.faults.config(PingInterval=77)
        intervals = [(await client.told("ping_interval"))["ping_interval"] for _ in range(2)]
    assert 77 in intervals


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"code": 1000040346, "msg": "app_id is invalid"}, 1000040346),
        ({"code": 1000040350, "msg": "too many connections"}, 1000040350),
    ],
)
async def test_a_refused_discovery_is_reported(sdk: Any, fault: Any, code: int) -> None:
    async with LocalFeishu() as feishu:
        feishu.faults.refuse_discovery(**fault)
        async with sdk(feishu) as client:
            assert (await client.told("refused"))["refused"] == code


async def test_wrong_credentials_are_reported(sdk: Any) -> None:
    async with LocalFeishu() as feishu, sdk(feishu, app_secret="wrong") as client:
        assert (await client.told("refused"))["refused"] == 10014


async def test_a_refused_upgrade_is_reported_from_its_handshake_headers(sdk: Any) -> None:
    async with LocalFeishu() as feishu:
        feishu.faults.refuse_upgrade(autherrcode=1000040350, msg="too many connections")
        async with sdk(feishu) as client:
            assert (await client.told("refused"))["refused"] == 514


async def test_the_sdk_reconnects_after_a_cut_and_gets_what_it_missed(sdk: Any) -> None:
    config = {"ReconnectNonce": 0, "ReconnectInterval": 1}
    async with LocalFeishu(config=config) as feishu, sdk(feishu) as client:
        first = feishu.push(sample(TYPE))
        await client.told("event_id")
        assert await first.wait(10)
        feishu.faults.cut()
        missed = feishu.push(sample(TYPE))
        assert await missed.wait(20)
    assert feishu.stats["connections"] == 2
    assert missed.attempts[-1].connection != first.attempts[-1].connection
