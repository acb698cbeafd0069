"""Runs the official SDK as a subprocess against a local Feishu."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flybridge.bridge.local.feishu.server import APP_SECRET, LocalFeishu
from flybridge.bridge.process.parent_death import die_with_parent

HERE = Path(__file__).parent
DEFAULT = HERE.parents[1] / ".venv-interop" / "bin" / "python"
START_TIMEOUT = 30.0  # importing lark-oapi takes seconds


class Sdk:
    """The lines that the SDK's process tells, one by one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def connected(self) -> None:
        """Wait for the first pong: ClientConfig is told at discovery and then with each pong."""
        await self.told("ping_interval")
        await self.told("ping_interval")

    async def told(self, key: str) -> dict[str, Any]:
        """The next line that has `key`."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT):
            while line := await self._process.stdout.readline():
                fields: dict[str, Any] = json.loads(line)
                if key in fields:
                    return fields
        raise AssertionError(f"the SDK ended without telling {key!r}")


@pytest.fixture(scope="session")
def interpreter() -> Path:
    """An interpreter with lark-oapi; without one the tests are skipped, but not on CI."""
    path = Path(os.environ.get("FLYBRIDGE_INTEROP_PYTHON", DEFAULT))
    if path.exists():
        return path
    sentence = (
        f"no interpreter with lark-oapi at {path}; "
        "python -m venv .venv-interop && .venv-interop/bin/pip install lark-oapi==1.7.5"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture
def sdk(interpreter: Path) -> Callable[..., AbstractAsyncContextManager[Sdk]]:
    """`async with sdk(feishu) as client:` runs an SDK client until the block ends."""

    @asynccontextmanager
    async def running(
        feishu: LocalFeishu, *, app_secret: str = APP_SECRET, fail_times: int = 0
    ) -> AsyncIterator[Sdk]:
        arguments = [HERE / "sdk_client.py", feishu.url, feishu.app_id, app_secret, str(fail_times)]
        process = await asyncio.create_subprocess_exec(
            interpreter,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        )
        try:
            yield Sdk(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return running
