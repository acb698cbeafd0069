"""A Redis of its own for every test file of the worker side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from bridge.local.valkey import EmbeddedRedis
from bridge.streams import Keys
from workers.guard import Guard


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as embedded:
        yield embedded


@pytest.fixture
def redis(server: EmbeddedRedis) -> Iterator[Redis]:
    client = Redis.from_url(server.url, protocol=2)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def keys() -> Keys:
    return Keys("cli_test")


@pytest.fixture
def guard(redis: Redis, keys: Keys) -> Guard:
    return Guard(redis, keys, "workers", event_lease=30, boot="w1")


@pytest.fixture
def other_guard(redis: Redis, keys: Keys) -> Guard:
    return Guard(redis, keys, "workers", event_lease=30, boot="w2")
