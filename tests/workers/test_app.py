"""The app at import: our packages and not their namesakes, every mistake by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flybridge.bridge.errors import EXIT_PLUGIN, EXIT_SETTINGS
from tests.project import ROOT


def run(*command: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLYBRIDGE_")}
    return subprocess.run(
        [sys.executable, *command],
        env={
            **clean,
            "FLYBRIDGE_LOG_FORMAT": "console",
            "PYTHONPATH": f"{path}{os.pathsep}{ROOT}",
            **environment,
        },
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_folders_of_the_users_may_be_named_as_ours(tmp_path: Path) -> None:
    for name in ("bridge", "handlers", "workers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError")

    ended = run(
        "-m", "celery", "-A", "flybridge.workers.app", "report", path=tmp_path,
        FLYBRIDGE_APP_ID="cli_test", FLYBRIDGE_HANDLERS="flybridge.handlers.builtin",
    )  # fmt: skip

    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", "no_such_module"),
        ("1 / 0", "ZeroDivisionError"),
        ("from flybridge.handlers import handles\nhandles('im.message.receive_v1')(42)", "42"),
    ],
)
def test_a_handler_module_that_is_broken_ends_the_worker_with_its_name(
    tmp_path: Path, code: str, said: str
) -> None:
    (tmp_path / "broken_play.py").write_text(code)

    ended = run(
        "-m", "flybridge", "worker", "--handlers", "broken_play",
        path=tmp_path, FLYBRIDGE_APP_ID="cli_test",
    )  # fmt: skip

    assert ended.returncode == EXIT_PLUGIN
    (line,) = ended.stderr.splitlines()
    assert "broken_play" in line
    assert said in line


def test_a_missing_setting_ends_the_worker_with_its_name(tmp_path: Path) -> None:
    ended = run("-m", "flybridge", "worker", path=tmp_path)

    assert ended.returncode == EXIT_SETTINGS
    assert "FLYBRIDGE_APP_ID is not set" in ended.stderr


def test_a_cluster_alone_ends_the_worker_with_what_celery_needs(tmp_path: Path) -> None:
    ended = run(
        "-m", "flybridge", "worker", path=tmp_path,
        FLYBRIDGE_APP_ID="cli_test", FLYBRIDGE_REDIS_URL="redis+cluster://127.0.0.1:1",
        FLYBRIDGE_HANDLERS="flybridge.handlers.builtin",
    )  # fmt: skip

    assert ended.returncode == EXIT_SETTINGS
    (line,) = ended.stderr.splitlines()
    assert line.startswith("flybridge: FLYBRIDGE_BROKER_URL is not set, and ")


def test_a_worker_without_handlers_would_discard_events_and_is_refused(tmp_path: Path) -> None:
    ended = run("-c", "import flybridge.workers.app", path=tmp_path, FLYBRIDGE_APP_ID="cli_x")
    assert ended.returncode != 0
    assert "every event would become a dead letter; give your modules" in ended.stderr


def test_a_worker_whose_modules_hold_no_handler_is_told_which_files_they_are(
    tmp_path: Path,
) -> None:
    """`json` was to be the user's own; the standard library's came first."""
    (tmp_path / "empty_play.py").write_text("")
    (tmp_path / "folder_play").mkdir()
    ended = run(
        "-m", "flybridge", "worker", "--handlers", "empty_play,folder_play,json,sys",
        path=tmp_path, FLYBRIDGE_APP_ID="cli_x",
    )  # fmt: skip
    assert ended.returncode == EXIT_SETTINGS
    line = ended.stderr.splitlines()[-1]
    for place in (
        "empty_play.py)",
        f"({tmp_path / 'folder_play'}",
        "json/__init__.py)",
        "built in)",
    ):
        assert place in line
    assert "is not set" not in line
    assert "decorate one with @handles" in line


def test_modules_of_the_working_directory_are_found_later_too(tmp_path: Path) -> None:
    here, late = tmp_path / "here", tmp_path / "late"
    here.mkdir()
    (here / "late.py").write_text("")
    program = f"import flybridge.workers.app, os; os.chdir({str(late.parent)!r}); import late"
    told = {"FLYBRIDGE_APP_ID": "cli_x", "FLYBRIDGE_HANDLERS": "flybridge.handlers.builtin"}
    # As with `celery`, whose console script has not the working directory on the path.
    ended = run("-P", "-c", program, path=here, **told, PYTHONSAFEPATH="1")
    assert ended.returncode == 0, ended.stderr


def test_under_the_celery_command_a_mistake_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "mistaken.py").write_text("import os\nURL = os.environ['NO_SUCH_URL']\n")
    command = ("-m", "celery", "-A", "flybridge.workers.app", "worker")
    given = {"FLYBRIDGE_APP_ID": "cli_test", "FLYBRIDGE_HANDLERS": "mistaken"}

    ended = run(*command, path=tmp_path, **given)
    assert ended.returncode == EXIT_PLUGIN
    (line,) = ended.stderr.splitlines()
    assert line.startswith(
        f"flybridge: handler module mistaken failed to import at {tmp_path}/mistaken.py:2: "
        "KeyError: 'NO_SUCH_URL'; set this environment variable"
    )

    ended = run(*command, path=tmp_path, **{**given, "FLYBRIDGE_APP_ID": ""})
    assert ended.returncode == EXIT_SETTINGS
    assert ended.stderr.startswith("flybridge: FLYBRIDGE_APP_ID is not set; ")
