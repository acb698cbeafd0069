"""A service that a program has built, bridge and worker in one process: nothing acked is lost."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from flybridge.bridge.builder import Builder
from flybridge.bridge.errors import EXIT_FEISHU, EXIT_REDIS
from flybridge.bridge.lifecycle import Connected, Disconnected
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET
from flybridge.handlers import Context, Event, Handler, loggers
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

PROGRAM = Path(__file__).with_name("building.py")


def begun(stage: Stage, name: str = "service", secret: str = APP_SECRET, **settings: Any) -> Actor:
    (stage.directory / "service.yaml").write_text(
        f"Feishu:\n  AppId: {APP_ID}\n  AppSecret: {secret}\n"
        "  WebSocket: {HeartbeatIntervalMs: 30000}\n"
    )
    # An empty variable is as good as none.
    told = {"app_id": "", "app_secret": "", **settings}
    return stage.run(name, sys.executable, str(PROGRAM), **told)


async def ready(stage: Stage, name: str = "service", **settings: Any) -> Actor:
    service = begun(stage, name, **settings)
    await service.logged("feishu.connected")
    return service


async def test_a_service_handles_events_and_ends_with_0_when_told_to(stage: Stage) -> None:
    service = await ready(stage)
    event_ids = stage.push(*(message("fail 1") for _ in range(3)), message("slow 0.3"))
    await stage.settled(event_ids)

    (warning,) = service.lines("setting.unwise")
    assert warning["name"] == "service.yaml: Feishu:WebSocket:HeartbeatIntervalMs"
    stage.push(message("slow 0.5"))
    await eventually(lambda: len(stage.deeds("started")) == 8)
    service.send(signal.SIGTERM)
    service.send(signal.SIGINT)

    assert await service.ended() == 0
    assert len(stage.deeds("finished")) == 5
    assert service.lines("lease.released")
    assert APP_SECRET not in service.log.read_text()


async def test_nothing_that_was_acked_is_lost_by_a_kill(stage: Stage) -> None:
    service = await ready(stage)
    async with stage.traffic(every=0.01) as pushes:
        await eventually(lambda: len(stage.counted()) > 30)
        service.kill()
        await ready(stage, "service-2")
        await eventually(lambda: len(pushes) > 200)
    await stage.went_through(pushes)

    assert set(stage.counted()) == {push.event_id for push in pushes}


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"redis_url": "redis://127.0.0.1:{port}/0"}, EXIT_REDIS, "check that it runs"),
        ({"secret": "wrong"}, EXIT_FEISHU, "secret"),
    ],
)
async def test_a_service_that_cannot_start_ends_with_a_sentence_though_logs_are_off(
    settings: dict[str, str], code: int, said: str, stage: Stage
) -> None:
    settings = {name: value.format(port=free_port()) for name, value in settings.items()}
    service = begun(stage, **settings, enable_logging="false")

    assert await service.ended() == code
    lines = service.last_words()
    assert len(lines) == len(service.log.read_text().splitlines()) > 0
    assert said in lines[-1].lower()


class Keep(Handler):
    event_types = "im.message.receive_v1"

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def handle(self, event: Event, context: Context) -> None:
        self.seen.append(event.id)


async def test_inside_a_running_loop_an_event_goes_from_feishu_to_the_handler(
    stage: Stage,
) -> None:
    keep, happened = Keep(), []
    app = {"AppId": APP_ID, "AppSecret": APP_SECRET}
    service = (
        Builder()
        .configure_from({"Feishu": app})
        .configure(domain=stage.feishu.url, redis_url=stage.redis_server.url)
        .add_handler(keep)
        .build()
    )
    service.manager.subscribe(Connected, happened.append)
    service.manager.subscribe(Disconnected, happened.append)
    before = structlog.get_config()

    async with service:
        await service.manager.connected(5)
        (event_id,) = stage.push(message())
        await stage.settled([event_id])
        assert keep.seen == [event_id]
    assert [type(each) for each in happened] == [Connected, Disconnected]
    assert structlog.get_config() == before
    async with asyncio.timeout(5):
        await service.wait()


@pytest.mark.parametrize("enable_logging", [True, False])
async def test_an_embedded_service_logs_by_the_programs_logging_without_locals_or_not_at_all(
    enable_logging: bool,
    stage: Stage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loggers, "_destination", loggers._Destination(logging.NOTSET, None))
    structlog.reset_defaults()
    caplog.set_level(logging.INFO)

    async def fail(event: Event, context: Context) -> None:
        password = "hunter2-in-a-local"
        raise ValueError(f"{len(password)} characters")

    service = (
        Builder()
        .configure(app_id=APP_ID, app_secret=APP_SECRET, enable_logging=enable_logging)
        .configure(domain=stage.feishu.url, redis_url=stage.redis_server.url)
        .add_handler(fail, "im.message.receive_v1", max_attempts=1)
        .build()
    )
    async with service:
        await service.manager.connected(5)
        stage.push(message())
        await eventually(lambda: stage.dead_letters())
    assert ("attempt.failed" in caplog.text) is enable_logging
    assert ("feishu.connected" in caplog.text) is enable_logging
    assert ("ValueError: 18 characters" in caplog.text) is enable_logging
    assert "hunter2" not in caplog.text
