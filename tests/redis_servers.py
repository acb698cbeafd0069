"""The servers that tests run on: the embedded Valkey, and a Redis from PATH where there is one.

No package ships the oldest Redis that we serve, so tests on it are skipped where it is missing.
Everything else runs on the embedded Valkey then, and nothing fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

import pytest

from flybridge.bridge.local.valkey import find_binary

OLDEST = (7, 0)


def redis_or_skip() -> str:
    """The path of a redis-server of at least the oldest version that we serve.

    Raises:
        pytest.skip.Exception: there is none; its reason says what to install.
    """
    binary, missing = _look_on_path()
    if missing:
        pytest.skip(missing)
    return binary


def any_binary() -> str:
    """The path of that redis-server, or of the embedded Valkey where there is none."""
    binary, missing = _look_on_path()
    return find_binary() if missing else binary


@cache
def _look_on_path() -> tuple[str, str]:
    """The path of a redis-server, and why it does not serve; one of the two is empty."""
    cure = "install Redis 7.0 or later (Debian: apt install redis-server) to run this test on it"
    binary = shutil.which("redis-server")
    if binary is None:
        return "", f"redis-server is not on PATH; {cure}"
    try:
        told = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return "", f"{binary} does not run ({error}); {cure}"
    version = re.match(r"Redis server v=(\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return "", f"{binary} says {told.strip()[:60]!r}; {cure}"
    return binary, ""
