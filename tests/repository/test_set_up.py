"""What a newcomer's first `make` says while it sets up, and when it cannot."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.project import ROOT

SHELL_PART = ROOT / ".ci" / "set-up"


def the_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("set_up", ROOT / ".ci" / "set_up.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


set_up = the_script()

NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(': [Errno 111]
Connection refused')': /simple/amqp/
ERROR: Could not find a version that satisfies the requirement amqp==5.4.2 (from versions: none)
ERROR: No matching distribution found for amqp==5.4.2
"""
NOT_THERE = """\
ERROR: Could not find a version that satisfies the requirement amqp==5.4.2 (from versions: none)
ERROR: No matching distribution found for amqp==5.4.2
"""
OTHER_HASH = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the
    amqp==5.4.2 from https://index.example/amqp-5.4.2.whl (from -r requirements.txt (line 1)):
        Expected sha256 00
"""


@pytest.mark.parametrize(
    ("output", "beginning", "cure"),
    [
        (NO_NETWORK, "The package index cannot be reached.", "Check the network"),
        (NOT_THERE, "The package index has no amqp==5.4.2 for Python 3.", "another Python"),
        (OTHER_HASH, "The index served another amqp==5.4.2 than the lock", "pip cache purge"),
        ("ERROR: Failed building wheel for lupa\n", "lupa is not built for", "another Python"),
        ("OSError: [Errno 28] No space left on device", "The disk is full.", "Free some space"),
        ("[Errno 13] Permission denied: 'build'", "build cannot be written.", "folder yours"),
        ("Collecting x\nERROR: odd thing\nbye\n", "ERROR: odd thing (", "build/set-up.log"),
        ("", "no output (", "try again"),
    ],
)
def test_a_failure_is_one_sentence_with_its_cure(output: str, beginning: str, cure: str) -> None:
    sentence = set_up.cure(output)

    assert sentence.startswith(beginning)
    assert cure in sentence
    assert "\n" not in sentence


def test_it_shows_how_far_pip_is() -> None:
    fetched = "Looking\nCollecting a==1\n  Downloading a\nProcessing ./b.whl\n"

    assert set_up.how_far(fetched, 3) == ": 2 fetched"
    assert "trying again" in set_up.how_far(fetched + "WARNING: Retrying (Retry(\n", 3)
    assert set_up.how_far(fetched + "Installing collected packages: a, b\n", 3) == ": installing"


def test_an_old_python_is_named_with_what_is_needed(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo "is 3.9";; *) exit 1;; esac\n')
    old.chmod(0o755)

    ended = subprocess.run((SHELL_PART, old, tmp_path / "venv"), capture_output=True, text=True)

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Flybridge needs Python 3.11 or later: {old} is 3.9.")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.timeout(180)  # it makes an environment
def test_without_a_network_nothing_half_made_is_left(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("amqp==5.4.2 --hash=sha256:" + "0" * 64 + "\n")
    refusing = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    environment = {**os.environ, **refusing, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}

    ended = subprocess.run(
        (SHELL_PART, sys.executable, "venv", lock),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("The package index cannot be reached.")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()
    assert "\r" not in ended.stdout  # nobody watches: no line is drawn twice
    assert "[2/2] 1 packages" in ended.stdout


def test_an_environment_of_an_older_python_is_left_as_it_is_and_told_of(tmp_path: Path) -> None:
    old = tmp_path / "venv" / "bin" / "python"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    ended = subprocess.run(
        (SHELL_PART, sys.executable, "venv", os.devnull),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert ended.stderr == ("venv is of a Python older than 3.11. Delete it, then try again.\n")
    assert old.exists()
