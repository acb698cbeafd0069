"""Redis connections that follow a fail-over: they find the primary when they connect, and drop a
server that is no primary any more.

redis-py's Sentinel classes ask only in `connect`, so that the retry of a failed command goes to
the old address, and ask a dead Sentinel first each time. Its Cluster client routes by key, which
pipelines and scripts suffer from; all keys of an app are in one slot, so one connection is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import DefaultParser as DefaultAsyncParser
from redis.asyncio.connection import SSLConnection as AsyncTlsConnection
from redis.connection import Connection, DefaultParser, SSLConnection
from redis.exceptions import ConnectionError, RedisError

from flybridge.bridge.store.topology import Address, Topology, answer, question
from flybridge.handlers.loggers import get_logger

SEED_TIMEOUT = 0.4
"""Seconds for a seed to connect, and again to answer: two dead seeds leave time for a publish."""

log = get_logger(__name__)


class PrimaryLost(ConnectionError):
    """The server refused, since it is not, or may not act as, the primary of our keys.

    It is a ConnectionError, so that the connection is dropped, and a repeated command finds the
    server that is the primary then.
    """

    def __init__(self, text: str, status_code: str | None = None) -> None:
        super().__init__(f"{status_code} {text}" if status_code else text)


class PrimaryUnknown(ConnectionError):
    """No Sentinel or node could say who the primary is."""


_REFUSALS = dict.fromkeys(
    ("READONLY", "MASTERDOWN", "NOREPLICAS", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"), PrimaryLost
)
"""NOREPLICAS: a primary without its replicas may have been replaced behind a partition."""


class HeedfulParser(DefaultParser):  # type: ignore[misc, valid-type]
    """Treats these refusals like LOADING: they end the connection."""

    EXCEPTION_CLASSES: ClassVar[dict[str, Any]] = {**DefaultParser.EXCEPTION_CLASSES, **_REFUSALS}


class HeedfulAsyncParser(DefaultAsyncParser):  # type: ignore[misc, valid-type]
    """`HeedfulParser` for the event loop."""

    EXCEPTION_CLASSES: ClassVar[dict[str, Any]] = {
        **DefaultAsyncParser.EXCEPTION_CLASSES,
        **_REFUSALS,
    }


class Primary:
    """Finds the primary by asking the seeds in turn.

    Each search begins with the next seed, so that a seed that is dead, or cut off from the others,
    cannot hold us up for long.

    Args:
        topology: of Sentinels or a Cluster.
        app_id: decides the slot of the keys.
    """

    def __init__(self, topology: Topology, app_id: str) -> None:
        if topology.kind == "cluster" and not app_id:
            raise ValueError("a Cluster needs the app id")
        self.topology = topology
        self._app_id = app_id
        self._asked = 0
        self._known: Address | None = None
        self._options: dict[str, Any] = {
            **topology.tls_options,
            **topology.seed_login,
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": SEED_TIMEOUT,
            "socket_connect_timeout": SEED_TIMEOUT,
        }

    def find(self) -> Address:
        """Ask the seeds, each once.

        Raises:
            PrimaryUnknown: none of them knows.
        """
        made: Any = SSLConnection if self.topology.tls else Connection
        error: Exception | None = None
        for host, port in self._turn():
            connection = made(host=host, port=port, **self._options)
            try:
                connection.connect()
                connection.send_command(*question(self.topology))
                if found := self._read(connection.read_response(), (host, port)):
                    return found
            except (RedisError, OSError) as failure:
                error = failure
            finally:
                connection.disconnect()
        raise self._unknown(error) from error

    async def find_async(self) -> Address:
        """`find` for the event loop."""
        made: Any = AsyncTlsConnection if self.topology.tls else AsyncConnection
        error: Exception | None = None
        for host, port in self._turn():
            connection = made(host=host, port=port, **self._options)
            try:
                await connection.connect()
                await connection.send_command(*question(self.topology))
                if found := self._read(await connection.read_response(), (host, port)):
                    return found
            except (RedisError, OSError) as failure:
                error = failure
            finally:
                await connection.disconnect(nowait=True)
        raise self._unknown(error) from error

    def _turn(self) -> Iterator[Address]:
        """Every seed once, even if other searches are under way."""
        seeds, first = self.topology.nodes, self._asked
        for turn in range(len(seeds)):
            # Before it is asked: a search that is cut short goes on with the next.
            self._asked += 1
            yield seeds[(first + turn) % len(seeds)]

    def _read(self, reply: Any, asked: Address) -> Address | None:
        found = answer(self.topology, self._app_id, reply, asked)
        if found and self._known and found != self._known:
            place, before = (f"{host}:{port}" for host, port in (found, self._known))
            log.warning("redis.primary_changed", primary=place, before=before)
        self._known = found or self._known
        return found

    def _unknown(self, error: Exception | None) -> PrimaryUnknown:
        if self.topology.kind == "sentinel":
            return PrimaryUnknown(
                f"no Sentinel names a primary ({error or f'{self.topology.service} is unknown'})"
            )
        return PrimaryUnknown(f"no node names an owner of the slot ({error or 'it has none'})")


class FollowingConnection(Connection):
    """Connects to the server that is the primary at the moment."""

    def __init__(self, *, primary: Primary, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self._primary = primary

    def _connect(self) -> Any:
        self.host, self.port = self._primary.find()
        return super()._connect()  # type: ignore[no-untyped-call]

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        self.send_command("HELLO", check_health=False)  # type: ignore[no-untyped-call]
        _require_primary(self.read_response())


class FollowingTlsConnection(FollowingConnection, SSLConnection):
    """`FollowingConnection` by TLS."""


class FollowingAsyncConnection(AsyncConnection):
    """`FollowingConnection` for the event loop."""

    def __init__(self, *, primary: Primary, **settings: Any) -> None:
        super().__init__(**settings)
        self._primary = primary

    async def _connect(self) -> None:
        self.host, self.port = await self._primary.find_async()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        await self.send_command("HELLO", check_health=False)
        _require_primary(await self.read_response())


class FollowingAsyncTlsConnection(FollowingAsyncConnection, AsyncTlsConnection):
    """`FollowingAsyncConnection` by TLS."""


def _require_primary(hello: Any) -> None:
    """Refuse a replica: seeds may name a demoted server for a while, with old data.

    Redis: HELLO answers names and values in turn (RESP2), also to users who may not ask ROLE.
    """
    facts = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    if facts[b"role"] != b"master":
        raise PrimaryLost("its seeds name a server that is a replica")
