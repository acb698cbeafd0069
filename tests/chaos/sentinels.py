"""The two servers with three Sentinels that watch them, and what faults do to Sentinels."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from redis.exceptions import RedisError

from tests.chaos.servers import SETTLE_TIMEOUT, Servers
from tests.scenarios.topologies import SERVICE, Sentinels, SentinelServer, ask, sentinel_url

QUICK, NEVER = 0.5, 3600.0
"""Seconds without an answer after which the replica of a primary is promoted."""


class SentinelServers(Servers):
    """`Servers` behind Sentinels.

    Args:
        promoting: have the Sentinels promote the replica of a dead primary.
    """

    def __init__(
        self,
        directory: Path,
        binary: str | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        promoting: bool,
    ) -> None:
        super().__init__(directory, binary, settings)
        self._down_after = QUICK if promoting else NEVER
        self._sentinels: Sentinels

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._sentinels = await self._in_thread(
            lambda: Sentinels(
                self._directory,
                self.primary.port,
                down_after=self._down_after,
                binary=self._binary,
            )
        )
        return self

    @property
    def ports(self) -> tuple[int, ...]:
        return self.primary.port, self.replica.port, *self._sentinels.ports

    @property
    def sentinels(self) -> list[SentinelServer]:
        return self._sentinels.servers

    def url(self, ports: Mapping[int, int]) -> str:
        return sentinel_url(ports[port] for port in self._sentinels.ports)

    async def start_sentinel(self, sentinel: SentinelServer) -> None:
        """Start one that was killed."""
        await self._in_thread(sentinel.start)

    async def fail_over(self) -> None:
        """Have a Sentinel promote the replica; what that has not got in this moment is lost."""
        port = self.sentinels[0].port
        await self._in_thread(lambda: ask(port, "SENTINEL", "FAILOVER", SERVICE))
        await self.promoted()

    async def settled(self) -> None:
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while True:
                with suppress(RedisError, OSError):
                    if await self._agree():
                        break
                await asyncio.sleep(0.05)
        await self.in_sync()

    async def _agree(self) -> bool:
        """Whether all Sentinels name one primary, which knows that it is; then the other follows.

        Sentinels themselves would see to it after some ten seconds.
        """
        port = await self._in_thread(self._sentinels.agreed)
        if port == self.replica.port:
            self.primary, self.replica = self.replica, self.primary
        if port != self.primary.port:
            return False
        roles = [(await self.client(each).role())[0] for each in (self.primary, self.replica)]
        if roles == [b"master", b"master"]:
            await self.client(self.replica).replicaof("127.0.0.1", str(port))
        return roles[0] == b"master"

    def _kill_all(self) -> None:
        self._sentinels.kill()
        super()._kill_all()
