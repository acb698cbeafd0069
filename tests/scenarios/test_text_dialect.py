"""A gateway that speaks the JSON text dialect: its events take the same way as Feishu's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from bridge.local.feishu import LocalFeishu
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Stage, eventually, message


@pytest.fixture
async def gateway(stage: Stage) -> AsyncIterator[None]:
    """Takes the place of the stage's Feishu."""
    async with LocalFeishu(text_dialect=True, text_token="t-1") as feishu:
        stage.feishu = feishu
        yield
        stage.end()


@pytest.mark.usefixtures("gateway")
async def test_an_event_in_text_is_handled_once_and_the_token_is_in_no_log(stage: Stage) -> None:
    await stage.bridge_and_worker(text_dialect="true", text_token="t-1", log_level="debug")
    event_ids = stage.push(message(), message())
    await stage.settled(event_ids)
    assert stage.counted("finished") == dict.fromkeys(event_ids, 1)
    assert all("t-1" not in actor.log.read_text() for actor in stage.actors)


@pytest.mark.usefixtures("gateway")
async def test_a_wrong_token_is_refused_with_what_to_set(stage: Stage) -> None:
    bridge = stage.bridge(text_dialect="true", text_token="t-2")
    refused = await bridge.logged("feishu.refused")
    assert "check FLYBRIDGE_TEXT_TOKEN" in refused["reason"]
    await eventually(lambda: bridge.process.poll() is None)


async def test_a_gateway_by_hand_needs_only_what_its_invitation_says(stage: Stage) -> None:
    arguments = ("--text", "--text-token", "t-9", "--port", str(free_port()))
    gateway = stage.start("gateway", "local", *arguments)
    await eventually(lambda: "Ready. ^C ends it." in gateway.log.read_text())
    told = dict(re.findall(r"FLYBRIDGE_(\w+)=(\S+)", gateway.log.read_text()))
    assert (told["TEXT_DIALECT"], told["TEXT_TOKEN"]) == ("true", "t-9")

    await stage.bridge_and_worker(**{name.lower(): value for name, value in told.items()})
    trigger = stage.start(
        "trigger", "trigger", "im.message.receive_v1", "--set", "message.content=hello",
        "--url", told["DOMAIN"],
    )  # fmt: skip
    assert await trigger.ended() == 0
    event_ids = re.findall(r"--> im\.message\.receive_v1 \[(\S+)\]", trigger.log.read_text())

    await stage.settled(event_ids)
    assert stage.counted("finished") == dict.fromkeys(event_ids, 1)
    assert len(event_ids) == 1
