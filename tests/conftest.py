"""What all tests share: where log lines go, and a mark for those that depend on what is on PATH."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from flybridge.handlers import loggers

# A busy machine is no reason to fail.
settings.register_profile(
    "slow_machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("slow_machine")

USES_PATH = {"any_redis", "either", "real_binary", "redis_url"}  # tests/bridge
USES_PATH |= {"either_server", "sentinels", "cluster"}  # tests/workers, tests/scenarios


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test whose server depends on what is on PATH; `.ci/run` selects them by it."""
    for item in items:
        if not USES_PATH.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("redis_server")


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    """A bridge or a service that a test starts decides it for the whole process."""
    before = loggers._destination
    yield
    loggers._destination = before
