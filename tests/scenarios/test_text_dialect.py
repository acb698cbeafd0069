"""A gateway that speaks the JSON text dialect: its events take the same way as Feishu's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

import pytest

from flybridge.bridge.builder import Builder
from flybridge.bridge.errors import EXIT_FEISHU
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.handlers import Context, Event
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


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
async def test_a_wrong_token_ends_the_bridge_with_what_to_set(stage: Stage) -> None:
    bridge = stage.bridge(text_dialect="true", text_token="t-2")
    assert await bridge.ended() == EXIT_FEISHU
    (said,) = bridge.last_words()
    assert said.startswith("the server answers auth")
    assert "check FLYBRIDGE_TEXT_TOKEN" in said


@pytest.mark.usefixtures("gateway")
async def test_a_gateway_may_call_events_by_the_seeds_names(stage: Stage) -> None:
    """Which are not Feishu's; each handler gets its own, under whichever name it was added."""
    handled: list[tuple[str, str]] = []

    def noting(name: str, *event_types: str) -> Callable[[Builder], object]:
        async def note(event: Event, context: Context) -> None:
            handled.append((name, event.id))

        return lambda builder: builder.add_handler(note, *event_types, name=name, queue="odd")

    service = (
        Builder()
        .configure(app_id=stage.feishu.app_id, app_secret=stage.feishu.app_secret)
        .configure(domain=stage.feishu.url, redis_url=stage.redis_server.url)
        .configure(text_dialect=True, text_token="t-1")
        .apply(noting("approved", "approval.approval.approved_v1"))
        .apply(noting("rejected", "approval.approval.rejected_v1"))
        .apply(noting("joined", "im.chat.member.user.added_v1"))
        .build()
    )
    sent = {
        "approved": "approval.approval.approved_v1",
        "rejected": "approval.approval.rejected_v1",
        "joined": "im.chat.member.user_added_v1",
    }
    async with service:
        await service.manager.connected(5)
        for name, event_type in sent.items():
            header = {"event_id": f"ev-{name}", "event_type": event_type}
            stage.push({"schema": "2.0", "header": header, "event": {}})
        await stage.settled([f"ev-{name}" for name in sent])
    assert sorted(handled) == sorted((name, f"ev-{name}") for name in sent)
    assert len(stage.entries("approval_instance")) == 2


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
