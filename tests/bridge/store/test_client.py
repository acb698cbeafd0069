"""Clients with limits, and the check of servers fit and unfit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from structlog.testing import capture_logs

from flybridge.bridge.errors import RedisUnfit, RedisUnreachable
from flybridge.bridge.store.client import (
    TIMEOUT,
    address,
    async_client,
    check_server,
    check_server_sync,
    sync_client,
    unreachable,
)
from flybridge.bridge.store.failover import PrimaryUnknown


class Server:
    """Answers what it is told to INFO and CONFIG GET."""

    def __init__(self, config: Any = None, **info: Any) -> None:
        self._info = info
        self._config = config or {"maxmemory-policy": "noeviction"}
        self.connection_pool = redis.ConnectionPool(host="127.0.0.1", port=1, password="secret")

    def info(self) -> Any:
        return self._info

    def config_get(self, name: str) -> Any:
        if isinstance(self._config, Exception):
            raise self._config
        return self._config


def check(*arguments: Any, **info: Any) -> None:
    check_server_sync(Server(*arguments, **info))  # type: ignore[arg-type]


@pytest.mark.parametrize("server", ["redis_url", "valkey_url"])
async def test_the_servers_of_this_machine_are_fit(
    server: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    async with async_client(url) as client:
        await check_server(client)
    with sync_client(url) as blocking:
        check_server_sync(blocking)


@pytest.mark.parametrize(
    ("info", "fact"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14 is too old; use Redis 7.0"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, "Valkey 7.1.0 is too old"),
        ({"redis_version": "7.4.0", "role": "slave"}, "read-only replica"),
        ({"redis_version": "7.4.0", "redis_mode": "sentinel"}, r"give redis\+sentinel://"),
        ({"redis_version": "7.4.0", "cluster_enabled": 1}, r"give redis\+cluster://"),
    ],
)
def test_an_unfit_server_is_refused_with_the_cure(info: Any, fact: str) -> None:
    with pytest.raises(RedisUnfit, match=fact):
        check(**info)


def test_versions_are_compared_as_numbers() -> None:
    check(redis_version="10.0.0")


def test_a_server_that_evicts_is_refused_with_the_command_that_cures_it() -> None:
    with pytest.raises(RedisUnfit, match="CONFIG SET maxmemory-policy noeviction"):
        check({b"maxmemory-policy": b"allkeys-lru"}, redis_version="7.0.15")


def test_a_server_that_evicts_is_accepted_with_a_warning_where_the_operator_says_so() -> None:
    evicting = Server({"maxmemory-policy": "allkeys-lru"}, redis_version="7.0.15")
    with capture_logs() as logs:
        check_server_sync(evicting, "accept")  # type: ignore[arg-type]
    assert [(line["event"], line["policy"]) for line in logs] == [
        ("redis.may_evict", "allkeys-lru")
    ]


def test_a_server_that_forbids_config_is_taken_on_trust() -> None:
    check(redis.ResponseError("unknown command 'CONFIG'"), redis_version="7.0.15")
    check(redis.exceptions.NoPermissionError("no"), redis_version="7.0.15")


async def test_a_real_server_with_a_wrong_policy_is_refused(real_redis: Redis) -> None:
    await real_redis.config_set("maxmemory-policy", "volatile-lru")
    try:
        with pytest.raises(RedisUnfit, match="volatile-lru"):
            await check_server(real_redis)
    finally:
        await real_redis.config_set("maxmemory-policy", "noeviction")


async def test_no_server_is_unreachable_and_the_password_stays_secret() -> None:
    url = "redis://someone:secret@127.0.0.1:1/3"
    async with async_client(url) as client:
        with pytest.raises(RedisUnreachable, match=r"redis://127\.0\.0\.1:1/3") as caught:
            await check_server(client)
    assert "secret" not in str(caught.value)
    assert "someone" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            redis.AuthenticationError("invalid username-password pair."),
            "refuses us (invalid username-password pair); check user and password in FLYBRIDGE_X.",
        ),
        (
            redis.ConnectionError("Error 1 connecting. [SSL: CERTIFICATE_VERIFY_FAILED] expired"),
            "certificates and ssl_ options in FLYBRIDGE_X.",
        ),
        (redis.BusyLoadingError("Loading"), "is loading its data (Loading); try again when"),
        (TimeoutError("no answer"), "did not answer (no answer); check that it runs, and FLY"),
    ],
)
def test_a_redis_that_cannot_be_used_is_named_with_what_it_said(
    error: Exception, said: str
) -> None:
    assert said in str(unreachable(error, "redis://h", "FLYBRIDGE_X"))


def test_a_seed_that_refuses_the_password_has_answered() -> None:
    unknown = PrimaryUnknown("no Sentinel names a primary (no)")
    unknown.__cause__ = redis.AuthenticationError("no")
    assert "refuses us" in str(unreachable(unknown, "sentinel m via h"))


async def test_wrong_credentials_are_told_by_every_client(
    server: Callable[[], object],
) -> None:
    server()
    place = server.url.removeprefix("redis://")  # type: ignore[attr-defined]
    async with async_client(f"redis://nobody:x@{place}") as client:
        with pytest.raises(RedisUnreachable, match="refuses us"):
            await check_server(client)
    with (
        sync_client(f"redis://nobody:x@{place}") as blocking,
        pytest.raises(RedisUnreachable, match="refuses us"),
    ):
        check_server_sync(blocking)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://u:p@host:6380/1?ssl_cert_reqs=none", "rediss://host:6380/1"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://host", "redis://host:6379/0"),
        ("redis+sentinel://u:p@h1:1,h2:2/m?sentinel_password=p", "sentinel m via h1:1,h2:2"),
        ("rediss+cluster://u:p@h1:1,h2:2", "cluster via h1:1,h2:2"),
    ],
)
def test_an_address_shows_no_credentials(url: str, shown: str) -> None:
    assert address(sync_client(url, app_id="cli_a1")) == shown
    assert address(async_client(url, app_id="cli_a1")) == shown


@pytest.fixture
def settings() -> dict[str, Any]:
    return async_client("redis://host").connection_pool.connection_kwargs


def test_every_limit_is_explicit_and_nothing_is_retried_ten_times(
    settings: dict[str, Any],
) -> None:
    assert settings["socket_timeout"] == settings["socket_connect_timeout"] == TIMEOUT
    assert settings["socket_keepalive"] is True
    assert settings["health_check_interval"] > 0
    assert settings["retry"].get_retries() == 1
    unrepeatable = sync_client("redis://host", retries=0)
    assert unrepeatable.connection_pool.connection_kwargs["retry"].get_retries() == 0
