"""Every Python sample of README and docs runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.samples import HANDLERS, MODULES, PROGRAMS, TESTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader would work: with the handlers of README and tutorial."""
    (tmp_path / "my_handlers.py").write_text(HANDLERS)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_every_module_can_be_loaded(folder: Path) -> None:
    for name, code in MODULES.items():
        (folder / f"{name}.py").write_text(code)
    loading = "".join(f"import {name}\n" for name in MODULES)
    (folder / "program.py").write_text(f"{loading}print('all')\n")
    assert len(MODULES) > 10
    assert run(folder, "program.py") == "all\n"


def test_every_test_passes(folder: Path) -> None:
    (folder / "conftest.py").write_text('pytest_plugins = ["flybridge.testing"]\n')
    for name, code in TESTS.items():
        (folder / f"test_{name}.py").write_text(code)
    options = ("-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder))
    said = run(folder, "-m", "pytest", *options)
    assert re.search(r"\d+ passed", said), said
    assert len(TESTS) > 5


def test_programs_are_those_of_which_a_test_is_known() -> None:
    assert sorted(PROGRAMS) == [f"docs_howto_embed_{number}" for number in range(3)]
