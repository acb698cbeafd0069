"""The command line: instant help, exit codes, sentences instead of tracebacks."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from flybridge.bridge import errors
from flybridge.bridge.cli import main
from flybridge.bridge.cli import run as running
from flybridge.bridge.config.settings import BridgeSettings, WorkerSettings
from flybridge.bridge.local.feishu.control import LocalControl
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.handlers.errors import PluginBroken, RegistrationInvalid
from tests.project import ROOT

HEAVY = ("celery", "redis", "opentelemetry", "pydantic", "structlog", "websockets", "starlette")

Flybridge = Callable[..., Result]
USAGE = click.UsageError.exit_code


pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def feishu() -> Iterator[LocalFeishu]:
    """A local Feishu on an event loop in a thread of its own."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = LocalFeishu()
        loop.run_until_complete(server.__aenter__())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield server
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(server.__aexit__(None, None, None))


# Help


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["trigger", "--help"], ["dlq", "replay", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from flybridge.bridge.cli.main import cli\n"
        "try: cli(sys.argv[1:], prog_name='flybridge')\n"
        f"finally: print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stderr.splitlines()[-1] == "[]"


def test_help_ends_with_examples(flybridge: Flybridge) -> None:
    shown = flybridge("--help").output

    assert "$ flybridge worker --handlers myapp.feishu\n" in shown


@pytest.mark.parametrize("command", [(), ("dlq",), ("groups",), ("handlers",)])
def test_lists_of_commands_hold_every_command_in_whole_sentences(
    command: tuple[str, ...], flybridge: Flybridge
) -> None:
    group = main.cli.commands[command[0]] if command else main.cli
    assert isinstance(group, click.Group)

    shown = flybridge(*command, "--help").output

    listed = re.findall(r"^  ([a-z]+)  +[A-Z].*[^.]\.$", shown, re.MULTILINE)
    assert sorted(listed) == sorted(group.commands)


@pytest.mark.parametrize("command", sorted(main.cli.commands))
def test_every_command_says_what_it_does(command: str, flybridge: Flybridge) -> None:
    result = flybridge(command, "--help")

    assert result.exit_code == 0
    assert main.cli.commands[command].help


def test_the_examples_name_commands_and_options_that_exist() -> None:
    for line in main.EXAMPLES.splitlines():
        _, found, rest = line.partition("flybridge ")
        if not found or not line.strip().startswith("$"):
            continue
        name, *arguments = rest.split()
        command = main.cli.commands[name]
        if isinstance(command, click.Group):
            command = command.commands[arguments[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {each for each in arguments if each.startswith("--")} <= known


# Settings and errors


def test_missing_settings_end_with_code_3_and_a_line_each(flybridge: Flybridge) -> None:
    result = flybridge("run")

    assert result.exit_code == errors.EXIT_SETTINGS
    assert result.stderr.splitlines()[0].startswith("flybridge: FLYBRIDGE_APP_ID is not set; give")
    assert result.stderr.splitlines()[1].startswith("flybridge: FLYBRIDGE_APP_SECRET is not set;")
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RedisUnreachable("no Redis; start it"), errors.EXIT_REDIS),
        (errors.FeishuRefused("wrong secret; correct it"), errors.EXIT_FEISHU),
        (errors.LeaseLost("stuck"), errors.EXIT_LEASE),
    ],
)
def test_an_error_on_purpose_is_a_sentence_and_a_code(
    error: errors.BridgeError, code: int, flybridge: Flybridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(settings: BridgeSettings) -> int:
        raise error

    monkeypatch.setattr(running, "run_bridge", fail)

    result = flybridge("run", env={"FLYBRIDGE_APP_ID": "cli_a1", "FLYBRIDGE_APP_SECRET": "hush"})

    assert result.exit_code == code
    assert result.stderr == f"flybridge: {error}\n"


def test_flags_beat_the_environment_and_the_env_file(
    flybridge: Flybridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[BridgeSettings] = []

    async def remember(settings: BridgeSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(running, "run_bridge", remember)
    Path("production.env").write_text("FLYBRIDGE_APP_ID=cli_file\nFLYBRIDGE_APP_SECRET=hush\n")

    result = flybridge(
        "--env-file", "production.env", "--log-level", "debug", "run", "--domain", "lark",
        env={"FLYBRIDGE_DOMAIN": "feishu", "FLYBRIDGE_LOG_FORMAT": "json"},
    )  # fmt: skip

    assert result.exit_code == 0
    (settings,) = seen
    assert (settings.app_id, settings.domain) == ("cli_file", "lark")
    assert (settings.log_level, settings.log_format) == ("debug", "json")


# dev


@pytest.mark.parametrize(
    ("flags", "environ", "env_file", "expected"),
    [
        ((), {}, "", "flybridge.handlers.builtin"),
        ((), {}, "FLYBRIDGE_HANDLERS=of_env_file\n", "of_env_file"),
        ((), {"FLYBRIDGE_HANDLERS": "of_environment"}, "FLYBRIDGE_HANDLERS=x", "of_environment"),
        (("--handlers", "of_flag"), {"FLYBRIDGE_HANDLERS": "x"}, "", "of_flag"),
    ],
)
def test_dev_takes_the_handlers_that_a_worker_would_take(
    flags: tuple[str, ...],
    environ: dict[str, str],
    env_file: str,
    expected: str,
    flybridge: Flybridge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    async def remember(*, handlers: str, **_: object) -> None:
        seen.append(handlers)

    monkeypatch.setattr(running, "run_dev", remember)
    Path(".env").write_text(env_file)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert flybridge("dev", *flags).exit_code == 0
    assert seen == [expected]


# worker


def _worker_module(monkeypatch: pytest.MonkeyPatch, run_worker: Callable[..., int]) -> None:
    stand_in = types.ModuleType("flybridge.workers.launch")
    stand_in.run_worker = run_worker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flybridge.workers.launch", stand_in)


def test_worker_hands_its_options_to_the_celery_app(
    flybridge: Flybridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[WorkerSettings, dict[str, Any]]] = []

    def remember(settings: WorkerSettings, **options: Any) -> int:
        seen.append((settings, options))
        return 0

    _worker_module(monkeypatch, remember)

    result = flybridge(
        "worker", "--queues", "im,contact", "--pool", "threads", "--concurrency", "8",
        "--handlers", "myapp.feishu", "--name", "w1@%h",
        env={"FLYBRIDGE_APP_ID": "cli_a1"},
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    ((settings, options),) = seen
    assert settings.handlers == ("myapp.feishu",)
    assert options == {"queues": "im,contact", "pool": "threads", "concurrency": 8, "name": "w1@%h"}


def test_a_broken_plugin_ends_the_worker_with_code_7(
    flybridge: Flybridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(settings: WorkerSettings, **options: Any) -> int:
        raise PluginBroken("myapp.feishu", "it needs 'lark'; install it")

    _worker_module(monkeypatch, fail)

    result = flybridge("worker", env={"FLYBRIDGE_APP_ID": "cli_a1"})

    assert result.exit_code == errors.EXIT_PLUGIN
    assert "myapp.feishu" in result.stderr
    assert "Traceback" not in result.stderr


def test_handlers_that_contradict_each_other_end_the_worker_with_code_7(
    flybridge: Flybridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each module imports; what is wrong shows when the worker makes its queues."""

    def fail(settings: WorkerSettings, **options: Any) -> int:
        raise RegistrationInvalid("two queues; give one")

    _worker_module(monkeypatch, fail)

    result = flybridge("worker", env={"FLYBRIDGE_APP_ID": "cli_a1"})

    assert (result.exit_code, result.stderr) == (
        errors.EXIT_PLUGIN,
        "flybridge: two queues; give one\n",
    )


def test_an_unknown_pool_is_a_usage_error(flybridge: Flybridge) -> None:
    assert flybridge("worker", "--pool", "eventlet").exit_code == USAGE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("local", "--port", "99999"), "99999 is not in the range 0<=x<=65535"),
        (("dev", "--port", "-1"), "-1 is not in the range 0<=x<=65535"),
        (("trigger", "app_open", "--url", "nonsense"), "give it like http://127.0.0.1:8719"),
        (("trigger", "app_open", "--timeout", "inf"), "inf is not in the range"),
        (("trigger", "app_open", "--timeout", "-1"), "-1.0 is not in the range"),
        (("handlers", "register", "play", "--timeout", "0"), "0.0 is not in the range"),
        (("handlers", "unregister", "play", "--timeout", "inf"), "inf is not in the range"),
        (("--env-file", ".", "run"), "File '.' is a directory"),
    ],
)
def test_what_an_option_cannot_be_is_a_usage_error(
    arguments: tuple[str, ...], said: str, flybridge: Flybridge
) -> None:
    result = flybridge(*arguments)

    assert result.exit_code == USAGE
    assert said in result.stderr


def test_a_text_token_without_the_text_dialect_is_a_usage_error(flybridge: Flybridge) -> None:
    result = flybridge("local", "--text-token", "t-1")

    assert result.exit_code == USAGE
    assert "give --text, too" in result.stderr


# trigger


def test_trigger_without_a_local_feishu_says_what_to_start(flybridge: Flybridge) -> None:
    result = flybridge("trigger", "im.message.receive_v1", "--url", "http://127.0.0.1:1")

    assert result.exit_code == 1
    assert result.stderr.startswith("flybridge: no local Feishu answers at http://127.0.0.1:1")


def test_trigger_finds_the_local_feishu_that_the_env_file_names(flybridge: Flybridge) -> None:
    Path(".env").write_text("FLYBRIDGE_DOMAIN=http://127.0.0.1:2\n")
    Path("other.env").write_text("FLYBRIDGE_DOMAIN=http://127.0.0.1:3\n")

    told = [flybridge("trigger", "app_open").stderr]
    told += [flybridge("--env-file", "other.env", "trigger", "app_open").stderr]

    for port, line in zip((2, 3), told, strict=True):
        assert line.startswith(f"flybridge: no local Feishu answers at http://127.0.0.1:{port}")


def test_trigger_offers_the_nearest_types_for_a_mistyped_one(flybridge: Flybridge) -> None:
    result = flybridge("trigger", "im.mesage.receive_v1")

    assert result.exit_code == USAGE
    assert "im.message.receive_v1" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["im.message.receive_v1", "--set", "novalue"]])
def test_trigger_refuses_what_it_cannot_make_an_event_of(
    arguments: list[str], flybridge: Flybridge
) -> None:
    assert flybridge("trigger", *arguments).exit_code == USAGE


def test_trigger_completes_types() -> None:
    completion = ShellComplete(main.cli, {}, "flybridge", "_FLYBRIDGE_COMPLETE")

    offered = [item.value for item in completion.get_completions(["trigger"], "im.message.rec")]

    assert offered == ["im.message.recalled_v1", "im.message.receive_v1"]


def test_trigger_says_when_no_bridge_is_connected(
    flybridge: Flybridge, feishu: LocalFeishu
) -> None:
    result = flybridge(
        "trigger", "im.message.receive_v1", "--set", "message.content=boom", "--timeout", "0.05",
        env={"FLYBRIDGE_DOMAIN": feishu.url},
    )  # fmt: skip

    assert result.exit_code == 1
    assert result.stdout.startswith("--> im.message.receive_v1 [")
    assert f"no bridge is connected, start one with FLYBRIDGE_DOMAIN={feishu.url}" in result.stderr
    (event,) = feishu.ledger.events.values()
    assert json.loads(json.loads(event.payload)["event"]["message"]["content"]) == {"text": "boom"}


class Acking:
    """Stands in for the control of a local Feishu whose bridge answers `code` after 4 ms."""

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.pushed: list[str] = []

    def push(self, control: LocalControl, envelope: dict[str, Any], *, count: int = 1) -> list[str]:
        own = envelope["header"]["event_id"]
        ids = [own] if count == 1 else [f"{own}-{number}" for number in range(count)]
        self.pushed += ids
        return ids

    def event(self, control: LocalControl, event_id: str) -> dict[str, Any]:
        old = {"time": 0.0, "answered": 9.0, "code": 200}
        new = {"time": 1e12, "answered": 1e12 + 0.0041, "code": self.code}
        return {"attempts": [old, new]}

    def status(self, control: LocalControl) -> dict[str, Any]:
        return {"app_id": "cli_local", "connections": [{}]}

    def wait_acked(self, control: LocalControl, ids: list[str], timeout: float) -> None:
        assert sorted(ids) == sorted(self.pushed)


@pytest.fixture
def acking(monkeypatch: pytest.MonkeyPatch) -> Acking:
    answers = Acking()
    for name in ("push", "event", "status", "wait_acked"):
        answer = getattr(answers, name)
        monkeypatch.setattr(LocalControl, name, lambda *args, _f=answer, **kw: _f(*args, **kw))
    return answers


def test_trigger_shows_each_push_and_its_ack(flybridge: Flybridge, acking: Acking) -> None:
    result = flybridge("trigger", "im.message.receive_v1", "--count", "2")

    first, second = acking.pushed
    assert first != second
    assert result.stdout.splitlines() == [
        f"--> im.message.receive_v1 [{first}]",
        f"--> im.message.receive_v1 [{second}]",
        f"<-- ack 200 in 4 ms [{first}]",
        f"<-- ack 200 in 4 ms [{second}]",
    ]


def test_trigger_pushes_the_same_id_again_and_again(flybridge: Flybridge, acking: Acking) -> None:
    result = flybridge("trigger", "im.message.receive_v1", "--same-id", "--count", "3")

    assert len(acking.pushed) == 3
    assert len(set(acking.pushed)) == 1
    assert [line[:3] for line in result.stdout.splitlines()] == ["-->", "<--"] * 3


def test_trigger_sums_up_many_events(flybridge: Flybridge, acking: Acking) -> None:
    result = flybridge("trigger", "im.message.receive_v1", "--count", "1000")

    there, back = result.stdout.splitlines()
    assert there == "--> im.message.receive_v1 x 1000"
    assert back.startswith("<-- 1000 acked in ")


def test_trigger_fails_when_the_bridge_could_not_keep_the_event(
    flybridge: Flybridge, acking: Acking
) -> None:
    acking.code = 500

    result = flybridge("trigger", "im.message.receive_v1")

    assert result.exit_code == 1
    assert "<-- ack 500" in result.stdout


def test_trigger_takes_an_envelope_from_a_file(flybridge: Flybridge, acking: Acking) -> None:
    envelope = {"header": {"event_id": "ev-1", "event_type": "my.type_v1"}, "event": {}}
    Path("event.json").write_text(json.dumps(envelope))

    result = flybridge("trigger", "--file", "event.json")

    assert result.stdout.startswith("--> my.type_v1 [ev-1]\n")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_trigger_refuses_a_file_without_an_envelope(content: str, flybridge: Flybridge) -> None:
    assert flybridge("trigger", "--file", "-", input=content).exit_code == USAGE


# main


def test_the_working_directory_goes_last_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", ["/first", "/last"])
    monkeypatch.setattr(sys, "argv", ["flybridge", "--help"])

    with pytest.raises(SystemExit):
        main.main()

    assert sys.path == ["/first", "/last", str(tmp_path)]
