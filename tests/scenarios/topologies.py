"""Real Sentinels and a real Cluster on loopback, each in place of the stage's one Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry

from flybridge.bridge.local.feishu.server import APP_ID
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.process.parent_death import die_with_parent
from flybridge.bridge.store.client import sync_client
from tests.redis_servers import any_binary
from tests.scenarios.stage import Stage
from tests.waiting import until

SERVICE = "mymaster"
SLOT = key_slot(APP_ID.encode())


def ask(port: int, *words: Any) -> Any:
    """The answer of the server on this port to one command."""
    once = Retry(NoBackoff(), 0)
    with Redis(port=port, protocol=2, decode_responses=True, retry=once) as client:
        return client.execute_command(*words)


class DataServer(EmbeddedRedis):
    """A running server that keeps data, in a directory of its own; what it acked is on disk."""

    def __init__(self, directory: Path, binary: str | None = None, **settings: str) -> None:
        port = free_port()
        super().__init__(
            directory / str(port),
            port,
            append_only=True,
            fsync="always",
            binary=binary or any_binary(),
            settings={"repl-diskless-sync-delay": "0", **settings},
        )
        self.start()

    def ask(self, *words: Any) -> Any:
        """The answer to one command."""
        return ask(self.port, *words)

    def in_sync(self) -> bool:
        """Whether it is a primary, and each of its replicas has all that it has."""
        role, offset, replicas = self.ask("ROLE")
        return role == "master" and {each[2] for each in replicas} == {str(offset)}


class SentinelServer:
    """A Sentinel that watches the primary on a port; two of three must agree.

    Args:
        down_after: seconds without an answer before it takes the primary for dead.
    """

    def __init__(
        self, directory: Path, watched: int, *, down_after: float, binary: str | None = None
    ) -> None:
        self.port = free_port()
        self._binary = binary or any_binary()
        self._directory = directory / str(self.port)
        self._directory.mkdir(parents=True)
        self._config = self._directory / "sentinel.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\n"
            f"dir {self._directory}\nlogfile {self._directory / 'log'}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {watched} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_after * 1000:.0f}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        self.start()

    def start(self) -> None:
        """Start it, or start it again with what it has written to its configuration since."""
        self.process = subprocess.Popen(
            [self._binary, str(self._config), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, parent=os.getpid()),
        )

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def facts(self) -> dict[str, str]:
        """What it knows of the primary."""
        told = ask(self.port, "SENTINEL", "MASTER", SERVICE)
        return dict(zip(told[::2], told[1::2], strict=True))


class Sentinels:
    """Three Sentinels that watch a primary with one replica."""

    def __init__(
        self, directory: Path, watched: int, *, down_after: float = 0.5, binary: str | None = None
    ) -> None:
        self.servers = [
            SentinelServer(directory, watched, down_after=down_after, binary=binary)
            for _ in range(3)
        ]
        until(self.agreed, despite=(RedisError,))

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    def agreed(self) -> int:
        """The port of the primary that all take for well; 0 when they do not."""
        found = {
            (int(facts["port"]), facts["num-slaves"], facts["num-other-sentinels"], facts["flags"])
            for facts in (server.facts() for server in self.servers)
        }
        port, *rest = found.pop()
        return port if not found and rest == ["1", "2", "master"] else 0

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


def sentinel_url(ports: Iterable[int]) -> str:
    """The URL of the primary behind Sentinels on these ports."""
    return f"redis+sentinel://{_places(ports)}/{SERVICE}/0"


def cluster_url(ports: Iterable[int]) -> str:
    """The URL of a Cluster with nodes on these ports."""
    return f"redis+cluster://{_places(ports)}"


def _places(ports: Iterable[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


class SentinelRedis:
    """A primary with one replica, watched by three Sentinels."""

    def __init__(self, directory: Path) -> None:
        self.primary = DataServer(directory)
        self.replica = DataServer(directory, replicaof=f"127.0.0.1 {self.primary.port}")
        until(self.primary.in_sync, despite=(RedisError,))
        self.sentinels = Sentinels(directory, self.primary.port)

    @property
    def url(self) -> str:
        return sentinel_url(self.sentinels.ports)

    def promoted(self) -> bool:
        """Whether the replica has become the primary."""
        with suppress(RedisError):  # a Sentinel cuts every connection when it promotes
            return bool(self.replica.ask("ROLE")[0] == "master")
        return False

    def add_replica(self) -> None:
        """Start the server that was the primary again, as a replica of the promoted one."""
        self.primary.settings["replicaof"] = f"127.0.0.1 {self.replica.port}"
        self.primary.start()
        self.primary, self.replica = self.replica, self.primary

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.sentinels, self.primary, self.replica):
            server.kill()


class ClusterRedis:
    """Three primaries that share the slots, and a replica of the one that has the app's.

    Args:
        pairs: give each of the primaries a replica.
        settings: more of each server's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        pairs: bool = False,
        binary: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        told = {"cluster-enabled": "yes", "cluster-node-timeout": "1000", **(settings or {})}
        self.primaries = [DataServer(directory, binary, **told) for _ in range(3)]
        self.replicas = [DataServer(directory, binary, **told) for _ in range(3 if pairs else 1)]
        bounds = [0, 5461, 10922, 16384]
        for node, first, end in zip(self.primaries, bounds[:-1], bounds[1:], strict=True):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            if first <= SLOT < end:
                self.owner = node
        self.others = [node for node in self.primaries if node is not self.owner]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        until(lambda: all(map(self._well, self.nodes)), despite=(RedisError,))
        followed = [self.owner, *self.others]
        for replica, primary in zip(self.replicas, followed, strict=False):
            replica.ask("CLUSTER", "REPLICATE", name(primary))
            until(primary.in_sync, despite=(RedisError,))

    @property
    def nodes(self) -> list[DataServer]:
        return [*self.primaries, *self.replicas]

    @property
    def replica(self) -> DataServer:
        """The first owner's."""
        return self.replicas[0]

    @property
    def url(self) -> str:
        return cluster_url(node.port for node in self.nodes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()

    def _well(self, node: DataServer) -> bool:
        known = f"cluster_known_nodes:{len(self.nodes)}"
        return known in str(node.ask("CLUSTER", "INFO")) and len(node.ask("CLUSTER", "SLOTS")) == 3


def name(node: DataServer) -> str:
    """A Cluster node's id."""
    return str(node.ask("CLUSTER", "MYID"))


def move_slot(source: DataServer, target: DataServer, primaries: Iterable[DataServer]) -> None:
    """Migrate the app's slot, keys and all, to another of a Cluster's primaries."""
    here, there = name(source), name(target)
    target.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", here)
    source.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", there)
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", SLOT, 100):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source, *primaries):
        node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", there)


class FollowingStage(Stage):
    """A stage whose own client follows the primary too.

    While Sentinels still disagree it asks again for some seconds: our actors do so by themselves.
    """

    @contextmanager
    def redis(self) -> Iterator[Redis]:
        client = sync_client(self.redis_server.url, app_id=APP_ID)
        patient = Retry(ConstantBackoff(0.1), 50, (ConnectionError,))
        client.connection_pool.connection_kwargs["retry"] = patient
        try:
            yield client
        finally:
            client.close()

    async def worker_answers_celery(self, **settings: Any) -> bool:
        """Whether `celery inspect ping` has an answer."""
        words = ("-m", "celery", "-A", "flybridge.workers.app", "inspect", "ping", "--timeout", "2")
        return await self.run("inspect", sys.executable, *words, **settings).ended() == 0


def free_port() -> int:
    """One that is free, and free above by 10000 too, where a Cluster's nodes talk."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
            if port > 55_000:
                continue
            with suppress(OSError), socket.create_server(("127.0.0.1", port + 10_000)):
                return port
