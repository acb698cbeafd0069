"""The first command that a new user runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.scenarios.stage import FLYBRIDGE


def test_the_demo_shows_the_main_job_and_loses_and_doubles_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [FLYBRIDGE, "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False
    )
    assert ended.returncode == 0, ended.stderr
    counted = dict(re.findall(r"^ +(.+?) {2,}(\d+)$", ended.stdout, re.MULTILINE))
    assert int(counted["events handled"]) == int(counted["different events"]) > 300
    assert (counted["LOST"], counted["HANDLED TWICE"]) == ("0", "0")
