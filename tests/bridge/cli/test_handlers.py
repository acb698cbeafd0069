"""`flybridge handlers`: a line per worker, and an exit code that tells whether all did it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flybridge.bridge.cli import main
from flybridge.bridge.config.settings import BridgeSettings, WorkerSettings
from flybridge.bridge.errors import EXIT_REDIS, EXIT_SETTINGS
from flybridge.bridge.telemetry import logs
from flybridge.workers.celery_integration import fleet

Flybridge = Callable[..., Result]

GREET = {"name": "play:greet", "patterns": ["im.message.*", "app_open"], "queue": None}
VIP = {"name": "play:vip", "patterns": ["*"], "queue": "vip"}
DEFAULT = {
    "name": "flybridge.handlers.default:Log",
    "patterns": ["*"],
    "queue": None,
    "default": True,
}


@pytest.fixture
def flybridge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Flybridge:
    for field in BridgeSettings.model_fields:
        monkeypatch.delenv(f"FLYBRIDGE_{field.upper()}", raising=False)
    monkeypatch.setattr(logs, "configure", lambda *args, **options: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBRIDGE_APP_ID", "cli_test")
    return lambda *words: CliRunner().invoke(main.cli, ["handlers", *words])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the workers were told; they are played."""
    asked: list[Any] = []

    def change(self: Any, command: str, timeout: float, **arguments: str) -> Any:
        assert "@" in arguments.pop("who")
        asked.append((command, timeout, arguments))
        return answers, len(missing)

    def handlers(self: Any) -> Any:
        return {
            "w2@h": {"revision": 1, "handlers": [VIP, GREET, DEFAULT]},
            "w1@h": {"revision": 0, "handlers": [GREET, DEFAULT]},
        }

    monkeypatch.setattr(fleet.Fleet, "change", change)
    monkeypatch.setattr(fleet.Fleet, "handlers", handlers)
    return asked


answers: dict[str, Any] = {}
missing: list[str] = []


@pytest.fixture(autouse=True)
def _obedient() -> None:
    answers.clear()
    missing.clear()
    for worker in ("w2@h", "w1@h"):
        answers[worker] = {"ok": {"handlers": ["play:greet", "play:vip"], "revision": 1}}


def test_each_worker_that_has_done_it_has_a_line(flybridge, asked) -> None:
    done = flybridge("register", "play", "--timeout", "3")
    assert done.exit_code == 0
    assert done.output == (
        "w1@h: registered play:greet, play:vip\nw2@h: registered play:greet, play:vip\n"
    )
    assert asked == [("register_handlers", 3.0, {"module": "play"})]


@pytest.mark.parametrize("command", [("list",), ("register", "play"), ("unregister", "play:one")])
def test_every_command_asks_the_group_and_the_redis_it_is_told(
    flybridge, asked, monkeypatch, command
) -> None:
    seen: list[WorkerSettings] = []
    monkeypatch.setattr(fleet.Fleet, "__init__", lambda self, settings: seen.append(settings))
    url = "redis://127.0.0.1:1/7"

    done = flybridge(*command, "--group", "audit", "--redis-url", url)

    assert done.exit_code == 0, done.output
    (settings,) = seen
    assert (settings.group, settings.redis_url) == ("audit", url)


def test_unregistering_names_the_handler(flybridge, asked) -> None:
    answers["w1@h"] = answers["w2@h"] = {"ok": {"handlers": ["play:greet"], "revision": 1}}
    done = flybridge("unregister", "play:greet")
    assert done.output.splitlines()[0] == "w1@h: unregistered play:greet"
    assert asked == [("unregister_handler", 10.0, {"name": "play:greet"})]


def test_a_worker_with_nothing_to_do_says_so(flybridge, asked) -> None:
    answers["w1@h"] = {"ok": {"handlers": [], "revision": 1}}
    assert "w1@h: nothing to do" in flybridge("register", "play").output


def test_a_refusal_and_a_silence_are_told_and_end_with_1(flybridge, asked) -> None:
    answers["w1@h"] = {"error": "it needs 'x', which is not installed"}
    missing.append("w3@h")
    done = flybridge("register", "play")
    assert done.exit_code == 1
    assert "w1@h: refused: it needs 'x', which is not installed" in done.output
    assert "w2@h: registered" in done.output
    assert "no answer from 1 more within 10 s" in done.output
    assert "flybridge: 1 of 3 workers refused, 1 did not answer" in done.output
    answers["w1@h"] = answers["w2@h"]
    assert flybridge("register", "play").exit_code == 1


def test_a_list_has_each_handler_once_and_counts_workers(flybridge, asked) -> None:
    lines = [line.split() for line in flybridge("list").output.splitlines()[1:]]
    assert lines == [
        ["play:greet", "2/2", "-", "im.message.*", "app_open"],
        ["play:vip", "1/2", "vip", "*"],
        ["flybridge.handlers.default:Log", "2/2", "-", "(default)"],
    ]
    assert json.loads(flybridge("list", "--json").output)["w1@h"]["revision"] == 0


@pytest.mark.parametrize(
    ("variable", "url", "code", "said"),
    [
        ("BROKER_URL", "memory://", 1, "these workers take no commands"),
        ("REDIS_URL", "redis+cluster://127.0.0.1:1", EXIT_SETTINGS, "another Redis"),
    ],
)
def test_where_there_are_no_commands_a_sentence_says_why(
    flybridge, monkeypatch, variable, url, code, said
) -> None:
    monkeypatch.setenv(f"FLYBRIDGE_{variable}", url)
    done = flybridge("list")
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_redis_that_does_not_answer_is_named_without_its_password(flybridge, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("FLYBRIDGE_REDIS_URL", f"redis://:secret@127.0.0.1:{port}/0")
    done = flybridge("register", "play")
    assert done.exit_code == EXIT_REDIS, done.output
    assert f"127.0.0.1:{port}" in done.output
    assert "secret" not in done.output
    assert len(done.output.splitlines()) == 1
