"""Sets the stage of each scenario and clears it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.scenarios.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    with EmbeddedRedis(append_only=True) as redis:
        async with LocalFeishu(clock_scale=100.0) as feishu:
            stage = Stage(tmp_path, redis, feishu)
            try:
                yield stage
            finally:
                stage.end()
