"""The examples of building a service: an event goes in, its effect is seen, SIGTERM ends it."""

from __future__ import annotations

import json
import sys

import pytest

from flybridge.handlers import Registry
from flybridge.handlers.samples import sample
from tests.examples.conftest import EXAMPLES, Example, Importer, Player, done
from tests.scenarios.stage import Stage, message

MESSAGE = "im.message.receive_v1"
USER = "contact.user.created_v3"


async def test_the_quick_start_runs_built_in_handlers(play: Player, stage: Stage) -> None:
    example = await play.connected("quick_start")
    await done(stage, message(), sample(USER))
    await example.said('"message.received"', '"user.created"')
    assert await example.ended() == 0


async def test_the_seeds_settings_file_serves_as_it_is(play: Player, stage: Stage) -> None:
    settings = json.loads((EXAMPLES / "settings.json").read_text())
    settings["Feishu"] |= {"AppId": stage.feishu.app_id, "AppSecret": stage.feishu.app_secret}
    program = (EXAMPLES / "quick_start.py").read_text()
    (stage.directory / "settings.json").write_text(json.dumps(settings))
    (stage.directory / "quick_start.py").write_text(program)
    actor = stage.run(
        "with-id", sys.executable, "quick_start.py", handlers="", app_id="", app_secret=""
    )
    example = Example(stage, actor)
    await actor.logged("feishu.connected")
    await done(stage, message())
    assert await example.ended() == 0


async def test_one_call_is_enough(play: Player, stage: Stage) -> None:
    example = await play.connected("one_call", "file")
    await done(stage, message())
    await example.said('"message.received"')
    assert await example.ended() == 0


@pytest.mark.parametrize(
    ("form", "attempts", "interval", "handlers"),
    [("single", 5, 20.0, 1), ("multi", 0, 20.0, 2), ("file", 5, 24.0, 2)],
)
async def test_each_one_call_form_is_a_service(
    module: Importer, stage: Stage, form: str, attempts: int, interval: float, handlers: int
) -> None:
    service = getattr(module("one_call"), form)()
    settings = service.settings
    assert (settings.max_reconnect_attempts, settings.ping_interval) == (attempts, interval)
    assert len(service.registry.list()) == handlers
    async with service:
        await done(stage, message())


async def test_every_way_to_register_leads_to_a_handler_that_runs(
    play: Player, stage: Stage
) -> None:
    example = await play.connected("registering")
    (event_id,) = await done(stage, message())
    ways = ("class", "function", "factory", "injection", "instance")
    await example.said(*(f"by {way}: {event_id}" for way in ways))
    assert await example.ended() == 0


async def test_a_handler_may_be_registered_while_events_flow(play: Player, stage: Stage) -> None:
    example = await play.connected("run_time")
    await example.said("registered __main__:CustomEventHandler")
    (event_id,) = await done(stage, message())
    await example.said(f"handled {event_id}")
    assert await example.ended() == 0


async def test_features_decide_which_handlers_there_are(play: Player, stage: Stage) -> None:
    example = await play.connected("configuring", "features")
    await done(stage, message())
    await example.said("audit: im.message.receive_v1", '"message.received"')
    assert not example.says("analytics:")
    assert await example.ended() == 0


def test_the_manager_of_handlers_gets_registers_asks_and_lists(module: Importer) -> None:
    run_time = module("run_time")
    handlers = run_time.EventHandlerManager(Registry())
    assert not handlers.is_registered(MESSAGE)

    name = handlers.register(run_time.CustomEventHandler())
    assert handlers.is_registered(MESSAGE)
    assert handlers.handlers_of(MESSAGE) == [name]
    assert handlers.all_event_types() == (MESSAGE,)

    handlers.unregister(name)
    assert not handlers.is_registered(MESSAGE)


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("code", "", (10, 3.0, 20.0, "info", 2)),
        ("environment", "", (0, 1.0, 15.0, "debug", 1)),
        ("environment", "production", (0, 1.0, 20.0, "info", 1)),
        ("defaults", "", (5, 5.0, 24.0, "info", 3)),
    ],
)
async def test_every_way_to_configure_ends_in_a_service(
    module: Importer,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environment: str,
    expected: tuple[object, ...],
) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    service = module("configuring").build(name)
    settings = service.settings
    assert expected == (
        settings.max_reconnect_attempts,
        settings.reconnect_delay,
        settings.ping_interval,
        settings.log_level,
        len(service.registry.list()),
    )
    async with service:
        await done(stage, message())
