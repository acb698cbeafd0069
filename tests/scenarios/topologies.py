"""Real Sentinels and a real Cluster on loopback, each in place of the stage's one Redis."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry

from bridge.local.feishu import APP_ID
from bridge.processes import die_with_parent
from bridge.redis_client import sync_client
from tests.redis_servers import any_binary
from tests.scenarios.stage import Stage
from tests.waiting import until

SERVICE = "mymaster"
PATIENCE = 15.0
SLOT = key_slot(APP_ID.encode())


class Server:
    """One server process on a port of its own, in a directory of its own."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.port = free_port()
        self.directory = directory / str(self.port)
        self.directory.mkdir(parents=True)
        self._settings = settings
        self.start()

    def start(self, *arguments: str) -> None:
        """Start it, or start it again."""
        own = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.directory,
            "logfile": self.directory / "log",
            **self._settings,
        }
        words = [word for name, value in own.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [any_binary(), *arguments, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, parent=os.getpid()),
        )

    def end(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def ask(self, *words: Any) -> Any:
        """The answer to one command."""
        with Redis(port=self.port, protocol=2, decode_responses=True) as client:
            return client.execute_command(*words)


class DataServer(Server):
    """A server that keeps data, with an append-only file."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        kept = {"save": "", "appendonly": "yes", "repl-diskless-sync-delay": 0}
        super().__init__(directory, **kept, **settings)


class SentinelServer(Server):
    """A Sentinel that watches the primary on a port; two of three must agree."""

    def __init__(self, directory: Path, watched: int) -> None:
        self._watched = watched
        super().__init__(directory)

    def start(self) -> None:
        """Start it with a configuration file, which it writes to."""
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._watched} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        super().start(str(config), "--sentinel")


class SentinelRedis:
    """A primary with one replica, watched by three Sentinels."""

    def __init__(self, directory: Path) -> None:
        self.primary = DataServer(directory)
        self.replica = DataServer(directory, replicaof=f"127.0.0.1 {self.primary.port}")
        self.sentinels: list[SentinelServer] = []
        until(self.in_sync, despite=(RedisError,))
        self.sentinels = [SentinelServer(directory, self.primary.port) for _ in range(3)]
        until(self._agreed, despite=(RedisError,))

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}/0"

    def in_sync(self) -> bool:
        """Whether the replica has all that the primary has."""
        role, offset, replicas = self.primary.ask("ROLE")
        return role == "master" and [each[2] for each in replicas] == [str(offset)]

    def promoted(self) -> bool:
        """Whether the replica has become the primary."""
        with suppress(RedisError):  # a Sentinel cuts every connection when it promotes
            return bool(self.replica.ask("ROLE")[0] == "master")
        return False

    def add_replica(self) -> None:
        """Start the server that was the primary again, as a replica of the promoted one."""
        self.primary.start("--replicaof", f"127.0.0.1 {self.replica.port}")
        self.primary, self.replica = self.replica, self.primary

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in (*self.sentinels, self.primary, self.replica):
            server.end()

    def _agreed(self) -> bool:
        seen = [sentinel.ask("SENTINEL", "MASTER", SERVICE) for sentinel in self.sentinels]
        facts = [dict(zip(each[::2], each[1::2], strict=True)) for each in seen]
        return all(
            (each["num-slaves"], each["num-other-sentinels"], each["flags"]) == ("1", "2", "master")
            for each in facts
        )


class ClusterRedis:
    """Three primaries that share the slots, and a replica of the one that has the app's."""

    def __init__(self, directory: Path) -> None:
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": 1000}
        self.nodes = [DataServer(directory, **settings) for _ in range(4)]
        for node in self.nodes:
            until(partial(node.ask, "PING"), despite=(RedisError,))
        *primaries, self.replica = self.nodes
        bounds = [0, 5461, 10922, 16384]
        for node, first, end in zip(primaries, bounds[:-1], bounds[1:], strict=True):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            if first <= SLOT < end:
                self.owner = node
        self.others = [node for node in primaries if node is not self.owner]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        until(lambda: all(self._well(node) for node in self.nodes), despite=(RedisError,))
        self.replica.ask("CLUSTER", "REPLICATE", self.name(self.owner))
        until(self.in_sync, despite=(RedisError,))

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{places}"

    def name(self, node: Server) -> str:
        """The node's id."""
        return str(node.ask("CLUSTER", "MYID"))

    def in_sync(self) -> bool:
        """Whether the replica has all that the owner has."""
        role, offset, replicas = self.owner.ask("ROLE")
        return role == "master" and [each[2] for each in replicas] == [str(offset)]

    def move_slot(self, target: Server) -> None:
        """Migrate the app's slot, keys and all, from its owner to another primary."""
        source, here, there = self.owner, self.name(self.owner), self.name(target)
        target.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", here)
        source.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", there)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", SLOT, 100):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            if node is not self.replica:
                node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", there)
        self.owner = target

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.end()

    def _well(self, node: Server) -> bool:
        info = node.ask("CLUSTER", "INFO")
        known = "cluster_known_nodes:4" in info if isinstance(info, str) else True
        return known and len(node.ask("CLUSTER", "SLOTS")) == 3


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
        words = ("-m", "celery", "-A", "workers.app", "inspect", "ping", "--timeout", "2")
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
