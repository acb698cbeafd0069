"""A Redis of its own for every test file of the worker side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.claim.guard import Guard
from tests.redis_servers import redis_or_skip
from tests.workers.follower import Follower, follower


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as embedded:
        yield embedded


@pytest.fixture(scope="session", params=["valkey", "redis"])
def either_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """The embedded Valkey, and the Redis of this machine."""
    binary = redis_or_skip() if request.param == "redis" else None
    with EmbeddedRedis(binary=binary) as embedded:
        yield embedded


@pytest.fixture
def redis(server: EmbeddedRedis) -> Iterator[Redis]:
    client = Redis.from_url(server.url, protocol=2)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def full(redis: Redis) -> Iterator[Callable[[], None]]:
    """Call it, and Redis refuses to grow from then on."""
    yield lambda: redis.config_set("maxmemory", 1)
    redis.config_set("maxmemory", 0)


@pytest.fixture
def keys() -> Keys:
    return Keys("cli_test")


@pytest.fixture
def guard(redis: Redis, keys: Keys) -> Guard:
    return Guard(redis, keys, "workers", event_lease=30, boot="w1")


@pytest.fixture
def other_guard(redis: Redis, keys: Keys) -> Guard:
    return Guard(redis, keys, "workers", event_lease=30, boot="w2")


@pytest.fixture
def worker(redis: Redis, keys: Keys) -> Follower:
    return follower(redis, keys, "c1")


@pytest.fixture
def publish(redis: Redis, keys: Keys) -> Callable[..., str]:
    """Put events into their streams as the bridge does; gives the last entry's id."""

    def publish(*event_ids: str, event_type: str = "im.message.receive_v1") -> str:
        entry_id = ""
        for event_id in event_ids:
            event = Entry(event_id, event_type, "cli_test", "tk", "2.0", 1, 2, 3, "", "", b"{}")
            fields = event.fields()
            stream = keys.stream(event_type)
            entry_id = redis.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))
            redis.sadd(keys.types, event_type)
        return entry_id.decode()

    return publish
