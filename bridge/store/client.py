"""Makes Redis clients with explicit limits, and checks that a server is fit.

redis-py 8 alone would retry every command ten times, and a retried XADD is a second entry. Here a
client retries once, at once: the bridge sends idempotent scripts and reads, and the caller, who has
a time budget, judges a second failure. A client for commands that may not be repeated is built with
`retries=0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import redis
import redis.asyncio
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import SSLConnection as AsyncTlsConnection
from redis.asyncio.connection import UnixDomainSocketConnection as AsyncUnixConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from flybridge.bridge.errors import RedisUnfit, RedisUnreachable
from flybridge.bridge.process.daemon_thread import in_daemon_thread
from flybridge.bridge.store.failover import (
    FollowingAsyncConnection,
    FollowingAsyncTlsConnection,
    FollowingConnection,
    FollowingTlsConnection,
    HeedfulAsyncParser,
    HeedfulParser,
    Primary,
)
from flybridge.bridge.store.redis_port import refuse_mistaken
from flybridge.bridge.store.topology import Topology, bracketed, parse
from flybridge.handlers.loggers import get_logger

TIMEOUT = 5.0
"""Seconds for one reply and for one connect. Without it a half-open socket blocks for ever."""

HEALTH_CHECK = 15
"""Seconds of idleness after which a connection is checked with PING before use."""

OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)

_POLICY = "maxmemory-policy"

log = get_logger(__name__)


Eviction = Literal["refuse", "accept"]
"""What to do about a server that may evict keys."""


def async_client(url: str, *, app_id: str = "", retries: int = 1) -> redis.asyncio.Redis:
    """A client for the event loop.

    Args:
        app_id: decides the slot of the keys; needed for the URL of a Cluster.
        retries: 0 for commands that may not be repeated.
    """
    topology = parse(url)
    pool = redis.asyncio.ConnectionPool(
        **_arguments(topology, app_id),
        connection_class=_connection_class(topology, _ASYNC),
        parser_class=HeedfulAsyncParser,
        retry=AsyncRetry(NoBackoff(), retries),
    )
    return redis.asyncio.Redis.from_pool(pool)


def sync_client(url: str, *, app_id: str = "", retries: int = 1) -> redis.Redis:
    """A blocking client, for workers; see `async_client`."""
    topology = parse(url)
    pool = redis.ConnectionPool(
        **_arguments(topology, app_id),
        connection_class=connection_class(topology),
        parser_class=HeedfulParser,
        retry=Retry(NoBackoff(), retries),
    )
    return redis.Redis.from_pool(pool)


def connection_class(topology: Topology) -> type[redis.connection.AbstractConnection]:
    """The connection class of a blocking pool for this topology."""
    return _connection_class(topology, _SYNC)


async def check_server(client: redis.asyncio.Redis, eviction: Eviction = "refuse") -> None:
    """Make sure that this server can keep events.

    Args:
        eviction: `accept` only warns of a server that may evict keys.

    Raises:
        RedisUnfit: too old, a replica, or it may evict keys.
        RedisUnreachable: no answer, or none to this user.
    """
    where = address(client)
    await in_daemon_thread(lambda: check_port(client), "redis-port")
    try:
        _judge_info(await client.info(), where)
        _judge_policy(await client.config_get(_POLICY), eviction)
    except ResponseError as error:
        _forbidden(error, where)
    except (RedisError, OSError) as error:
        raise unreachable(error, where) from error


def check_server_sync(client: redis.Redis, eviction: Eviction = "refuse") -> None:
    """`check_server` for a blocking client."""
    where = address(client)
    check_port(client)
    try:
        _judge_info(client.info(), where)
        _judge_policy(client.config_get(_POLICY), eviction)
    except ResponseError as error:
        _forbidden(error, where)
    except (RedisError, OSError) as error:
        raise unreachable(error, where) from error


def check_port(
    client: redis.Redis | redis.asyncio.Redis, variable: str = "FLYBRIDGE_REDIS_URL"
) -> None:
    """Make sure that what listens on the server's port speaks the protocol of the URL.

    With several seeds nothing is checked, since one may be away or mistaken while another works.

    Raises:
        RedisUnreachable: it speaks another protocol, or says nothing; within 5 s.
    """
    settings = client.connection_pool.connection_kwargs
    if "path" in settings:
        return
    if "primary" in settings:
        topology = settings["primary"].topology
        nodes, tls = topology.nodes, topology.tls
    else:
        nodes = ((settings.get("host", "localhost"), settings.get("port", 6379)),)
        tls = "SSL" in client.connection_pool.connection_class.__name__
    if len(nodes) == 1:
        refuse_mistaken(*nodes[0], tls=tls, where=address(client), variable=variable)


def address(client: redis.Redis | redis.asyncio.Redis) -> str:
    """The address of the server as it may be shown: without user, password and options."""
    settings = client.connection_pool.connection_kwargs
    if "primary" in settings:
        return str(settings["primary"].topology)
    if "path" in settings:
        return f"unix://{settings['path']}"
    connection_class = client.connection_pool.connection_class
    scheme = "rediss" if "SSL" in connection_class.__name__ else "redis"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return f"{scheme}://{bracketed(host)}:{port}/{settings.get('db') or 0}"


_SYNC = (UnixDomainSocketConnection, Connection, SSLConnection,
         FollowingConnection, FollowingTlsConnection)  # fmt: skip
_ASYNC = (AsyncUnixConnection, AsyncConnection, AsyncTlsConnection,
          FollowingAsyncConnection, FollowingAsyncTlsConnection)  # fmt: skip


def _connection_class(topology: Topology, classes: tuple[type[Any], ...]) -> type[Any]:
    unix, plain, tls, following, following_tls = classes
    if topology.socket:
        return unix
    if topology.kind == "server":
        return tls if topology.tls else plain
    return following_tls if topology.tls else following


def _arguments(topology: Topology, app_id: str) -> dict[str, Any]:
    """The options of the URL win over our limits."""
    arguments: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "health_check_interval": HEALTH_CHECK,
        **topology.arguments,
    }
    if not topology.socket:
        arguments.setdefault("socket_keepalive", True)
    if topology.kind != "server":
        arguments["primary"] = Primary(topology, app_id)
    return arguments


def _judge_info(info: Mapping[str, Any], where: str) -> None:
    if info.get("redis_mode") == "sentinel":
        raise RedisUnfit(f"{where} is a Sentinel; give redis+sentinel://host:port/service.")
    if info.get("cluster_enabled") and not where.startswith("cluster"):
        raise RedisUnfit(f"{where} is a node of a Cluster; give redis+cluster://host:port.")
    if "valkey_version" in info:
        name, version, oldest = "Valkey", info["valkey_version"], OLDEST_VALKEY
    else:
        name, version, oldest = "Redis", info["redis_version"], OLDEST_REDIS
    if _numbers(version) < oldest:
        wanted = ".".join(map(str, oldest))
        raise RedisUnfit(f"{name} {version} is too old; use {name} {wanted} or later.")
    if info.get("role") == "slave":
        raise RedisUnfit(f"This {name} is a read-only replica; give the URL of its primary.")


def _judge_policy(config: Mapping[Any, Any], eviction: Eviction) -> None:
    policies = [text(value) for name, value in config.items() if text(name) == _POLICY]
    if not policies or policies == ["noeviction"]:
        return
    if eviction == "accept":
        log.warning("redis.may_evict", policy=policies[0], hint="evicted keys are lost events")
        return
    raise RedisUnfit(
        f"Redis may evict keys ({_POLICY} is {policies[0]}), and with them events; "
        f"set it: CONFIG SET {_POLICY} noeviction, and in its configuration file."
    )


def _forbidden(error: ResponseError, where: str) -> None:
    """A managed Redis often forbids CONFIG or INFO; the bridge starts all the same."""
    if "out of range" in str(error):
        raise RedisUnfit(f"{where} does not exist ({error}); give a database that does.") from error
    cure = f"make sure yourself that {_POLICY} is noeviction"
    log.warning("redis.check_skipped", address=where, error=str(error), cure=cure)


def unreachable(
    error: Exception, where: str, variable: str = "FLYBRIDGE_REDIS_URL"
) -> RedisUnreachable:
    """The error to raise instead of redis-py's, with what to do.

    Args:
        error: no reply that refuses a command, but a lack of an answer, or of access.
        where: `address` of the client.
        variable: the variable that holds its URL.
    """
    said = str(error).rstrip(".")
    if any(isinstance(each, AuthenticationError) for each in (error, error.__cause__)):
        return RedisUnreachable(
            f"Redis at {where} refuses us ({said}); check user and password in {variable}."
        )
    if isinstance(error, BusyLoadingError):
        return RedisUnreachable(
            f"Redis at {where} is loading its data ({said}); try again when it is done."
        )
    if "SSL" in said:
        return RedisUnreachable(
            f"TLS with Redis at {where} failed ({said}); check that it speaks TLS on this port, "
            f"and certificates and ssl_ options in {variable}."
        )
    return RedisUnreachable(
        f"Redis at {where} did not answer ({said}); check that it runs, and {variable}."
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def text(value: Any) -> str:
    """A reply as text, whether it came decoded or not."""
    return value.decode() if isinstance(value, bytes) else str(value)
