"""The Python of README.md runs as it stands there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, done
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

README = (EXAMPLES.parent.parent / "README.md").read_text(encoding="utf-8")
GREET, ITS_TEST, BATCH, MIDDLEWARE, SERVICE, MANAGER = re.findall(
    r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE
)

THEIRS = """
from flybridge.handlers import Handler

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
"""What the README supposes to be in `my_handlers.py` besides."""

SETTINGS = "[Production.WebSocket]\nMaxReconnectAttempts = 7\n"


def run_to_end(directory: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={"PYTHONPATH": f"{directory}:{EXAMPLES.parent.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


async def said(actor: Actor, *texts: str) -> None:
    await eventually(lambda: all(text in actor.log.read_text() for text in texts))


def test_the_first_handler_passes_its_test(tmp_path: Path) -> None:
    (tmp_path / "my_handlers.py").write_text(GREET)
    (tmp_path / "test_greet.py").write_text(ITS_TEST)
    options = ("-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path))
    assert "1 passed" in run_to_end(tmp_path, "-m", "pytest", *options, "test_greet.py")


@pytest.mark.parametrize(
    ("block", "check"),
    [
        (BATCH, "assert registry.list()[0].batch == Batch(100, 0.05); "
                "print(asyncio.run(save([1, 2], None)) == [None, None])"),
        (MIDDLEWARE, "from flybridge.handlers.registry import registry; "
                     "print(registry.default.run.__qualname__ != 'LogUnhandled.handle')"),
    ],
    ids=["batch", "middleware"],
)  # fmt: skip
def test_what_a_worker_would_load_is_registered(tmp_path: Path, block: str, check: str) -> None:
    program = f"from flybridge.handlers.registry import registry\n{block}\n{check}\n"
    (tmp_path / "program.py").write_text(program)
    assert run_to_end(tmp_path, "program.py") == "True\n"


async def test_the_service_handles_an_event_by_all_of_its_handlers(stage: Stage) -> None:
    (stage.directory / "my_handlers.py").write_text(GREET + THEIRS)
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


async def test_the_manager_tells_of_the_end_and_of_its_heartbeat(stage: Stage) -> None:
    (stage.directory / "program.py").write_text(f"import asyncio\n{MANAGER}\nasyncio.run(main())\n")
    program = stage.run("program", sys.executable, "program.py", handlers="")
    await said(program, "leading True ")
    await said(program, "1000 closed by us")  # reconnect()
    await eventually(lambda: stage.feishu.stats["connections"] == 2)
