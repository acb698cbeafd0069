"""Marks the tests that would run on a redis-server from PATH."""

from __future__ import annotations

import pytest

USES_PATH = {"any_redis", "either", "real_binary", "redis_url"}  # tests/bridge
USES_PATH |= {"either_server", "sentinels", "cluster"}  # tests/workers, tests/scenarios


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test whose server depends on what is on PATH; `.ci/run` selects them by it."""
    for item in items:
        if not USES_PATH.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("redis_server")
