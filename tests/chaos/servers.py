"""Two real Redis servers, one following the other, and what faults do to them. No proxies here.

The append-only file is synced at every write: what Redis acknowledged survives its kill -9.
Behind Sentinels and in a Cluster they are in `sentinels` and `cluster`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from flybridge.bridge.local.valkey import EmbeddedRedis, find_binary

T = TypeVar("T")

SYNC_TIMEOUT = 10.0

SETTLE_TIMEOUT = 45.0
"""Seconds to promote a server; Sentinels take 30 s of them when they find the machine too busy."""


class Servers:
    """`async with Servers(directory, binary) as servers:` runs a primary and a replica.

    Args:
        settings: more of both servers' own.
    """

    told: ClassVar[Mapping[str, str]] = {}
    """Settings of all actors that work with these servers."""

    primary: EmbeddedRedis
    """The server that has the app's keys."""
    replica: EmbeddedRedis

    def __init__(
        self,
        directory: Path,
        binary: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._directory, self._binary = directory, binary or find_binary()
        self._settings = {"repl-diskless-sync-delay": "0", **(settings or {})}
        # A server dies with the thread that started it: one thread, as long-lived as we are.
        self._thread = ThreadPoolExecutor(1, "redis-starter")
        self._clients: dict[int, redis.asyncio.Redis] = {}

    async def __aenter__(self) -> Self:
        self.primary, self.replica = (
            EmbeddedRedis(
                self._directory / name,
                append_only=True,
                fsync="always",
                binary=self._binary,
                settings=self._settings,
            )
            for name in ("redis-a", "redis-b")
        )
        for server in (self.primary, self.replica):
            await self._in_thread(server.start)
        await self._follow()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._kill_all()
        self._thread.shutdown()

    @property
    def ports(self) -> tuple[int, ...]:
        """Where actors may come to be sent."""
        return (self.primary.port,)

    def url(self, ports: Mapping[int, int]) -> str:
        """How an actor gets there.

        Args:
            ports: of a server -> those of its proxy.
        """
        (port,) = ports.values()
        return f"redis://127.0.0.1:{port}/0"

    def client(self, server: EmbeddedRedis | None = None) -> redis.asyncio.Redis:
        """A client past all proxies, of the primary unless told otherwise. It repeats nothing."""
        port = (server or self.primary).port
        if port not in self._clients:
            self._clients[port] = redis.asyncio.Redis(
                port=port, protocol=2, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)
            )
        return self._clients[port]

    async def stop(self) -> None:
        """End the primary in good order."""
        await self._in_thread(self.primary.stop)

    def kill(self) -> None:
        """End the primary as a crash would."""
        self.primary.kill()

    async def start(self) -> None:
        """Start the primary again, with all it had acknowledged."""
        await self._in_thread(self.primary.start)

    async def settled(self) -> None:
        """Wait until one server is the primary for everybody, and has its replica.

        Raises:
            TimeoutError: that never came.
        """

    async def promoted(self) -> None:
        """Wait until the replica has become a primary.

        Raises:
            TimeoutError: it never did.
        """
        await self._until(
            self.replica, lambda info: info["role"] == "master", within=SETTLE_TIMEOUT
        )

    async def fail_over(self) -> None:
        """Swap the two. Redis itself holds writes back meanwhile: nothing acknowledged is lost.

        Raises:
            TimeoutError: they did not swap.
        """
        await self.client().execute_command(
            "FAILOVER", "TO", "127.0.0.1", self.replica.port, "TIMEOUT", int(SYNC_TIMEOUT * 1000)
        )
        await self.promoted()
        self.primary, self.replica = self.replica, self.primary

    async def part(self) -> None:
        """Promote the replica without the primary's knowledge, as if neither heard the other."""
        await self.client(self.replica).replicaof("NO", "ONE")

    def lose(self) -> None:
        """Have the one that was promoted take the primary's place, which is lost."""
        self.primary.kill()
        self.primary, self.replica = self.replica, self.primary

    async def rejoin(self) -> None:
        """Start the one that was lost; it drops what it had, and follows."""
        await self._in_thread(self.replica.start)
        await self._follow()

    async def in_sync(self) -> None:
        """Wait until the replica has what the primary has now.

        Raises:
            TimeoutError: it never came.
        """
        # The link is up a second before a replica that was given a copy gets what came since.
        reached = (await self.client().info("replication"))["master_repl_offset"]
        await self._until(
            self.replica,
            lambda info: (
                info.get("master_link_status") == "up" and info["slave_repl_offset"] >= reached
            ),
        )

    async def _follow(self) -> None:
        await self.client(self.replica).replicaof("127.0.0.1", str(self.primary.port))
        await self.in_sync()

    def _kill_all(self) -> None:
        for server in (self.replica, self.primary):
            server.kill()

    async def _until(
        self,
        server: EmbeddedRedis,
        wanted: Callable[[dict[str, Any]], bool],
        within: float = SYNC_TIMEOUT,
    ) -> None:
        async with asyncio.timeout(within):
            while True:
                try:
                    if wanted(await self.client(server).info("replication")):
                        return
                except (RedisError, OSError):
                    pass  # it is loading, or its link is
                await asyncio.sleep(0.02)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
