"""`flybridge dev` as a newcomer starts it: handlers that cannot run are told before "Ready"."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import redis

from flybridge.bridge import errors
from flybridge.bridge.local.feishu.control import LocalControl
from flybridge.bridge.local.feishu.server import APP_ID
from flybridge.bridge.store.streams import Keys
from tests.project import ROOT
from tests.waiting import until

GOOD = """\
from pathlib import Path
from flybridge.handlers import handles

@handles("im.message.receive_v1")
def greet(event, context):
    Path("greeted").touch()
"""

TWO_QUEUES = """\
from flybridge.handlers import handles

@handles("app_open", queue="one")
def one(event, context): ...

@handles("app_open", queue="two")
def two(event, context): ...
"""

Dev = Callable[[], subprocess.Popen[str]]


def shown_until(line: str, stream: IO[str] | None) -> str:
    """What a process has written up to that line; all of it if it ends before."""
    assert stream is not None
    shown = ""
    for each in stream:
        shown += each
        if line in each:
            break
    return shown


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Start `flybridge dev --handlers play` in a folder with nothing but that module."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLYBRIDGE_", "OTEL_"))}
        process = subprocess.Popen(
            [sys.executable, "-c", "from flybridge.bridge.cli.main import main; main()",
             "--log-level", "error", "dev", "--handlers", "play", "--port", "0"],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def children(folder: Path) -> list[int]:
    """The processes that work in the folder: each child of `dev` does."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == folder:
                found.append(int(link.parent.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def feishu_of(shown: str) -> str:
    (url,) = re.findall(r"Feishu: +(\S+)", shown)
    return str(url)


def is_closed(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("def f(:", errors.EXIT_PLUGIN, "play.py:1: SyntaxError: invalid syntax"),
        ("import no_such_package", errors.EXIT_PLUGIN, "'no_such_package', which is not installed"),
        (TWO_QUEUES, errors.EXIT_PLUGIN, "name different queues (one, two); give them the same"),
        ("x = 1", errors.EXIT_SETTINGS, "no handler in play ("),
        (None, errors.EXIT_PLUGIN, "no module 'play' on the path"),
    ],
)
def test_handlers_that_cannot_run_are_one_sentence_and_nothing_gets_ready(
    code: str | None, status: int, said: str, dev: Dev, tmp_path: Path
) -> None:
    if code is not None:
        (tmp_path / "play.py").write_text(code)

    ended = dev()
    shown, told = ended.communicate(timeout=40)

    assert ended.returncode == status, told
    (line,) = told.splitlines()
    assert line.startswith("flybridge: ")
    assert said in line
    assert "Ready" not in shown
    assert is_closed(feishu_of(shown))
    assert not children(tmp_path)


def test_who_sees_ready_has_a_worker_and_a_connection_and_after_the_end_nothing_is_left(
    dev: Dev, tmp_path: Path
) -> None:
    (tmp_path / "play.py").write_text(GOOD)
    running = dev()
    shown = shown_until("Ready", running.stdout)
    assert "Handlers:  play\n" in shown
    assert "worker " in shown
    assert "bridge-2 " in shown
    (url,) = re.findall(r"Redis: +(\S+)", shown)
    with redis.Redis.from_url(url) as client:
        assert client.exists(Keys(APP_ID).workers("workers"))

    control = LocalControl(feishu_of(shown))
    assert control.status()["connections"]
    pushed = subprocess.run(
        [
            sys.executable, "-m", "flybridge",
            "trigger", "im.message.receive_v1", "--url", control.url,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    until((tmp_path / "greeted").exists)

    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Stopping worker, bridge-1, bridge-2; ^C again ends them within 2 s." in said
    assert is_closed(control.url)
    assert not children(tmp_path)


def test_a_stop_before_all_is_ready_is_a_clean_end(dev: Dev, tmp_path: Path) -> None:
    """The module takes its time, as one that loads a model does."""
    (tmp_path / "play.py").write_text("import time\ntime.sleep(600)\n")
    running = dev()
    shown_until("Handlers:", running.stdout)
    until(lambda: len(children(tmp_path)) > 1)

    running.send_signal(signal.SIGTERM)
    shown, told = running.communicate(timeout=30)

    assert (running.returncode, told) == (0, "")
    assert "Ready" not in shown
    assert not children(tmp_path)


def test_a_worker_that_is_killed_is_started_again(dev: Dev, tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text(GOOD)
    running = dev()
    (told,) = re.findall(r"worker (\d+) ", shown_until("Processes:", running.stdout))
    os.kill(int(told), signal.SIGKILL)

    again = shown_until("starting it again", running.stdout)

    assert "worker was ended by SIGKILL; starting it again" in again
    until(lambda: len(children(tmp_path)) == 4)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode == 0
