"""Scripts are found wherever the program is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from flybridge.bridge.store.scripts import load

print(len(load("publish").text) > 0, len(load("claim").text) > 0)
"""


def test_a_program_in_any_folder_finds_the_scripts_of_both_packages(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "True True\n", ended.stderr
