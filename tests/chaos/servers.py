"""Two real Redis servers, one following the other, and what faults do to them. No proxies here.

The append-only file is synced at every write: what Redis acknowledged survives its kill -9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from redis.exceptions import RedisError

from bridge.local.valkey import EmbeddedRedis

SYNC_TIMEOUT = 10.0


class Servers:
    """`async with Servers(directory, binary) as servers:` runs a primary and a replica."""

    def __init__(self, directory: Path, binary: str | None = None) -> None:
        self.primary, self.replica = (
            EmbeddedRedis(directory / name, append_only=True, fsync="always", binary=binary)
            for name in ("redis-a", "redis-b")
        )
        # A server dies with the thread that started it: one thread, as long-lived as we are.
        self._thread = ThreadPoolExecutor(1, "redis-starter")
        self._clients: dict[int, redis.asyncio.Redis] = {}

    async def __aenter__(self) -> Self:
        for server in (self.primary, self.replica):
            await self._start(server)
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
        for server in (self.replica, self.primary):
            server.kill()
        self._thread.shutdown()

    def client(self, server: EmbeddedRedis | None = None) -> redis.asyncio.Redis:
        """A client past all proxies, of the primary unless told otherwise."""
        port = (server or self.primary).port
        if port not in self._clients:
            self._clients[port] = redis.asyncio.Redis(
                port=port, protocol=2, socket_timeout=5.0, single_connection_client=False
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
        await self._start(self.primary)

    async def fail_over(self) -> None:
        """Swap the two. Redis itself holds writes back meanwhile: nothing acknowledged is lost.

        Raises:
            TimeoutError: they did not swap.
        """
        await self.client().execute_command(
            "FAILOVER", "TO", "127.0.0.1", self.replica.port, "TIMEOUT", int(SYNC_TIMEOUT * 1000)
        )
        await self._until(self.replica, lambda info: info["role"] == "master")
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
        await self._start(self.replica)
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

    async def _start(self, server: EmbeddedRedis) -> None:
        await self._in_thread(server.start)
        client = self.client(server)
        await client.config_set("repl-diskless-sync-delay", "0")

    async def _until(self, server: EmbeddedRedis, wanted: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(SYNC_TIMEOUT):
            while True:
                try:
                    if wanted(await self.client(server).info("replication")):
                        return
                except (RedisError, OSError):
                    pass  # it is loading, or its link is
                await asyncio.sleep(0.02)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)
