"""A Cluster of three primaries with a replica each, and what faults do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from redis.exceptions import RedisError

from tests.chaos.servers import SETTLE_TIMEOUT, Servers
from tests.scenarios.topologies import SLOT, ClusterRedis, DataServer, cluster_url, move_slot

Shard = tuple[int, ...]
"""Ports of an owner of slots and of its replicas."""


class ClusterServers(Servers):
    """`Servers` in a Cluster: the primary is the owner of the app's slot.

    Args:
        promoting: let replicas take the place of a dead primary by themselves.
    """

    told: ClassVar[Mapping[str, str]] = {"broker_url": "memory://"}

    def __init__(
        self,
        directory: Path,
        binary: str | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        promoting: bool,
    ) -> None:
        super().__init__(directory, binary, settings)
        self._settings["cluster-replica-no-failover"] = "no" if promoting else "yes"
        # A replica stays with its shard, and stands for it however long it heard nothing.
        self._settings["cluster-allow-replica-migration"] = "no"
        self._settings["cluster-replica-validity-factor"] = "0"
        self._cluster: ClusterRedis
        self.others: list[DataServer] = []
        """The primaries that have other slots."""

    async def __aenter__(self) -> Self:
        self._cluster = await self._in_thread(
            lambda: ClusterRedis(
                self._directory, pairs=True, binary=self._binary, settings=self._settings
            )
        )
        await self.settled()
        return self

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(node.port for node in self._cluster.nodes)

    def url(self, ports: Mapping[int, int]) -> str:
        return cluster_url(ports.values())

    async def fail_over(self) -> None:
        """Swap the two. The Cluster holds writes back meanwhile: nothing acknowledged is lost."""
        await self.client(self.replica).execute_command("CLUSTER", "FAILOVER")
        await self.promoted()

    async def move_slot(self, target: DataServer) -> None:
        """Migrate all that the app has to another primary."""
        source = self._node(self.primary.port)
        await self._in_thread(lambda: move_slot(source, target, [source, *self.others]))

    async def start_node(self, node: DataServer) -> None:
        """Start one that was killed."""
        await self._in_thread(node.start)

    async def settled(self) -> None:
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while True:
                with suppress(RedisError, OSError):
                    if await self._in_thread(self._agree):
                        break
                await asyncio.sleep(0.05)
        await self.in_sync()

    def _agree(self) -> bool:
        """Whether all nodes name the same owners, each with its replica, and serve their slots."""
        ours, shards = _view(self._cluster.nodes[0])
        for node in self._cluster.nodes:
            if "cluster_state:ok" not in str(node.ask("CLUSTER", "INFO")):
                return False
            if _view(node) != (ours, shards):
                return False
        if any(len(shard) != 2 for shard in shards):
            return False
        self.primary, self.replica = map(self._node, ours)
        self.others = [self._node(owner) for owner, _ in sorted(shards - {ours})]
        return True

    def _node(self, port: int) -> DataServer:
        return next(node for node in self._cluster.nodes if node.port == port)

    def _kill_all(self) -> None:
        for node in self._cluster.nodes:
            node.kill()


def _view(node: DataServer) -> tuple[Shard, frozenset[Shard]]:
    """The shard that has the app's slot, and all of them, as this node sees them."""
    rows = node.ask("CLUSTER", "SLOTS")
    shards = {(first, last): tuple(server[1] for server in servers)
              for first, last, *servers in rows}  # fmt: skip
    ours = next((each for (first, last), each in shards.items() if first <= SLOT <= last), ())
    return ours, frozenset(shards.values())
