"""Redis clients with explicit limits, and the check that a server is fit. Not a wrapper of
redis-py.

redis-py 8 alone would retry every command ten times, and a retried XADD is a second entry. Here a
client retries once, at once: what the bridge sends are idempotent scripts and reads, and a second
failure is for the caller to judge, who has a budget. A client for commands that may not be
repeated is built with `retries=0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from bridge.errors import RedisUnfit, RedisUnreachable

TIMEOUT = 5.0
"""Seconds for one reply and for one connect. Without it a half-open socket blocks for ever."""

HEALTH_CHECK = 15
"""Seconds of idleness after which a connection is tried with PING before it is used."""

OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)

_POLICY = "maxmemory-policy"

log = structlog.get_logger("bridge.redis")


def async_client(url: str, *, retries: int = 1) -> redis.asyncio.Redis:
    """A client for the event loop; see the module for `retries`."""
    retry = AsyncRetry(NoBackoff(), retries)
    return redis.asyncio.Redis.from_url(url, retry=retry, **_limits(url))


def sync_client(url: str, *, retries: int = 1) -> redis.Redis:
    """A blocking client, for workers; see the module for `retries`."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), retries), **_limits(url))


async def check_server(client: redis.asyncio.Redis) -> None:
    """Make sure that this server can keep events.

    Raises:
        RedisUnfit: too old, a replica, or it may evict keys.
        RedisUnreachable: no answer, or none to this user.
    """
    try:
        _judge_info(await client.info())
        _judge_policy(await client.config_get(_POLICY))
    except ResponseError as error:
        _forbidden(error, address(client))
    except (RedisError, OSError) as error:
        raise _unreachable(error, address(client)) from error


def check_server_sync(client: redis.Redis) -> None:
    """`check_server` for a blocking client."""
    try:
        _judge_info(client.info())
        _judge_policy(client.config_get(_POLICY))
    except ResponseError as error:
        _forbidden(error, address(client))
    except (RedisError, OSError) as error:
        raise _unreachable(error, address(client)) from error


def address(client: redis.Redis | redis.asyncio.Redis) -> str:
    """The server's URL as it may be shown: without user, password and query."""
    settings = client.connection_pool.connection_kwargs
    if "path" in settings:
        return f"unix://{settings['path']}"
    connection_class = client.connection_pool.connection_class
    scheme = "rediss" if "SSL" in connection_class.__name__ else "redis"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"{scheme}://{host}:{port}/{settings.get('db') or 0}"


def _limits(url: str) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "health_check_interval": HEALTH_CHECK,
    }
    if not url.startswith("unix:"):
        limits["socket_keepalive"] = True
    return limits


def _judge_info(info: Mapping[str, Any]) -> None:
    if "valkey_version" in info:
        name, version, oldest = "Valkey", info["valkey_version"], OLDEST_VALKEY
    else:
        name, version, oldest = "Redis", info["redis_version"], OLDEST_REDIS
    if _numbers(version) < oldest:
        wanted = ".".join(map(str, oldest))
        raise RedisUnfit(f"{name} {version} is too old; use {name} {wanted} or later.")
    if info.get("role") == "slave":
        raise RedisUnfit(f"This {name} is a read-only replica; give the URL of its primary.")


def _judge_policy(config: Mapping[Any, Any]) -> None:
    policies = [_text(value) for name, value in config.items() if _text(name) == _POLICY]
    if policies and policies != ["noeviction"]:
        raise RedisUnfit(
            f"Redis may evict keys ({_POLICY} is {policies[0]}), and with them events; "
            f"set it: CONFIG SET {_POLICY} noeviction, and in its configuration file."
        )


def _forbidden(error: ResponseError, where: str) -> None:
    """A managed Redis often forbids CONFIG or INFO; that alone is no reason not to start."""
    if "out of range" in str(error):
        raise RedisUnfit(f"{where} does not exist ({error}); give a database that does.") from error
    cure = f"make sure yourself that {_POLICY} is noeviction"
    log.warning("redis.check_skipped", address=where, error=str(error), cure=cure)


def _unreachable(error: Exception, where: str) -> RedisUnreachable:
    if isinstance(error, AuthenticationError):
        cure = "check user and password in FLYBRIDGE_REDIS_URL"
    elif isinstance(error, BusyLoadingError):
        cure = "it is loading its data; try again when it is done"
    else:
        cure = "check that it runs, and FLYBRIDGE_REDIS_URL"
    return RedisUnreachable(f"Redis at {where} did not answer ({error}); {cure}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
