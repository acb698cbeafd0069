"""The programs of docs/howto/embed.md run as they stand there; what its handlers do is seen."""

from __future__ import annotations

import signal
import sys

from tests.docs.samples import HANDLERS, PROGRAMS
from tests.examples.conftest import done
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

SERVICE, WORKER, MANAGER = (PROGRAMS[f"docs_howto_embed_{number}"] for number in range(3))

THEIRS = """
from flybridge import Handler

database, surveys = "db-1", True


class Audit(Handler):
    def __init__(self, database):
        self.database = database

    def handle(self, event, context):
        print(f"audited by {self.database}")


class Survey(Handler):
    event_types = "im.message.receive_v1"

    def handle(self, event, context):
        print("surveyed")
"""
"""What the page supposes to be in `my_handlers.py` besides."""

SETTINGS = "[Production.WebSocket]\nMaxReconnectAttempts = 7\n"


async def said(actor: Actor, *texts: str) -> None:
    await eventually(lambda: all(text in actor.log.read_text() for text in texts))


async def test_the_service_handles_an_event_by_all_of_its_handlers(stage: Stage) -> None:
    (stage.directory / "my_handlers.py").write_text(HANDLERS + THEIRS)
    (stage.directory / "settings.toml").write_text(SETTINGS)
    (stage.directory / "program.py").write_text(SERVICE)
    program = stage.run("program", sys.executable, "program.py", handlers="")
    await program.logged("feishu.connected")
    assert {line["name"] for line in program.lines("setting.unwise")} == {
        "settings.toml: Production:WebSocket:MaxReconnectAttempts"
    }
    await done(stage, message())
    await said(program, '"greeting"', "audited by db-1", "surveyed")
    program.send(signal.SIGTERM)
    assert await program.ended() == 0


async def test_the_worker_handles_events_of_a_bridge_elsewhere(stage: Stage) -> None:
    (stage.directory / "my_handlers.py").write_text(HANDLERS)
    (stage.directory / "program.py").write_text(f"import asyncio\n{WORKER}\nasyncio.run(main())\n")
    program = stage.run("program", sys.executable, "program.py", handlers="")
    await stage.leader()
    await said(program, "handlers of my_handlers are at work")
    await done(stage, message())


async def test_the_manager_tells_of_the_end_and_of_its_heartbeat(stage: Stage) -> None:
    (stage.directory / "program.py").write_text(f"import asyncio\n{MANAGER}\nasyncio.run(main())\n")
    program = stage.run("program", sys.executable, "program.py", handlers="")
    await said(program, "leading True ")
    await said(program, "1000 closed by us")  # reconnect()
    await eventually(lambda: stage.feishu.stats["connections"] == 2)
