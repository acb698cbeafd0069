"""The cast: the roles of a casting as processes, each behind its own proxies, and their supervisor.

Like systemd it starts again whatever ends, unless a fault wants it to stay away. It hurts nobody
by itself: see `faults`.
"""

from __future__ import annotations

import asyncio
import signal
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flybridge.bridge.local.feishu.server import LocalFeishu
from tests.chaos.casting import Role
from tests.chaos.history import Exit
from tests.chaos.proxy import CutProxy
from tests.chaos.servers import Servers
from tests.project import ROOT
from tests.scenarios.stage import Actor, Stage

HERE = Path(__file__).parent
LAUNCH = HERE / "actors" / "launch.py"

RESTART_DELAY = 0.2
"""Seconds from the end of a process to its next start."""


class ProxiedFeishu(LocalFeishu):
    """A local Feishu that hands each bridge the URL of the bridge's own proxy.

    Bridges are told apart by the name by which they come: each has a loopback name of its own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.relays: dict[str, CutProxy] = {}

    def discover(self, body: bytes, host: str) -> tuple[int, dict[str, Any]]:
        status, answer = super().discover(body, host)
        if host in self.relays and "data" in answer:
            url = answer["data"]["URL"]
            answer["data"]["URL"] = url.replace(
                f":{self.ws_port}/", f":{self.relays[host].port}/", 1
            )
        return status, answer

    @property
    def ws_port(self) -> int:
        return self._ws_port


@dataclass
class ChaosStage(Stage):
    """Starts actors from a chosen copy of the product, with the chaos handlers on their path."""

    product: Path = ROOT

    def environment(self, **settings: Any) -> dict[str, str]:
        path = f"{LAUNCH.parent}:{self.product / 'src'}"
        return {**super().environment(**settings), "PYTHONPATH": path}


class Cast:
    """All roles, running.

    Args:
        stage: where they play.
        servers: Redis.
        feishu: the local one.
        roles: who plays.
        settings: for every actor.
    """

    def __init__(
        self,
        stage: ChaosStage,
        servers: Servers,
        feishu: ProxiedFeishu,
        roles: tuple[Role, ...],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.stage, self.servers, self.feishu = stage, servers, feishu
        self.roles = {role.name: role for role in roles}
        self.settings = dict(settings or {})
        self.redis: dict[str, CutProxy] = {}
        """Role -> its proxy to Redis."""
        self.discovery: dict[str, CutProxy] = {}
        """Bridge -> its proxy to Feishu's HTTP side."""
        self.feishu_links: dict[str, CutProxy] = {}
        """Bridge -> its proxy to Feishu's WebSocket side."""
        self.actors: dict[str, Actor] = {}
        self.exits: list[Exit] = []
        self.away: set[str] = set()
        """Roles that are not to be started again for now."""
        self.started: dict[str, float] = {}
        """Role -> when its present process was started."""
        self._stack = AsyncExitStack()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def bridges(self) -> list[str]:
        return [name for name, role in self.roles.items() if role.is_bridge]

    @property
    def workers(self) -> list[str]:
        return [name for name, role in self.roles.items() if role.is_worker]

    async def __aenter__(self) -> Cast:
        for role in self.roles.values():
            await self._make_proxies(role)
        for name in self.roles:
            self.start(name)
        self._supervisor = asyncio.create_task(self._supervise(), name="supervisor-of-actors")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
        self.stage.end()
        await self._stack.aclose()

    def start(self, name: str) -> Actor:
        """Start the process of a role."""
        role = self.roles[name]
        told: dict[str, Any] = {
            "redis_url": self.servers.url(self.redis[name].ports),
            "handlers": "playing",
            "ACTOR": name,
            "CHAOS_CLOCK": self._clock(name),
            "CHAOS_SCALE": "1",
            **self.servers.told,
            **self.settings,
            **role.settings,
        }
        if role.is_bridge:
            told["domain"] = f"http://{self._host(name)}:{self.discovery[name].port}"
        command = (sys.executable, "-P", str(LAUNCH), *role.arguments)
        self.started[name] = time.monotonic()
        self.actors[name] = self.stage.run(name, *command, **told)
        return self.actors[name]

    def running(self, name: str) -> bool:
        return self.actors[name].process.poll() is None

    def ended_since(self, name: str, instant: float) -> bool:
        """Whether a process of this role has ended since."""
        return any(each.actor == name and each.time >= instant for each in self.exits)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process of a role, if it runs."""
        if self.running(name):
            self.actors[name].send(number)

    def children(self, name: str) -> list[int]:
        """Pool children of a worker."""
        with suppress(psutil.Error):
            return self.actors[name].children()
        return []

    def set_clock(self, name: str, wrong_by: float) -> None:
        """Make the wall clock of a role wrong by so many seconds, from now on."""
        with self._clock(name).open("r+b") as file:
            file.write(struct.pack("d", wrong_by))

    async def leader(self) -> str | None:
        """The bridge that holds the lease, by Redis' record."""
        with suppress(Exception):  # Redis may be in any state: then nobody is known to lead
            holder = await self.servers.client().hget(self.stage.keys.lease, "holder")
            for name in self.bridges:
                if holder and f"-{self.actors[name].pid}-".encode() in holder:
                    return name
        return None

    def _clock(self, name: str) -> Path:
        path = self.stage.directory / f"{name}.clock"
        if not path.exists():
            path.write_bytes(struct.pack("d", 0.0))
        return path

    def _host(self, name: str) -> str:
        return ("127.0.0.1", "localhost")[self.bridges.index(name)]

    async def _make_proxies(self, role: Role) -> None:
        async def made(*ports: int, resp: bool) -> CutProxy:
            return await self._stack.enter_async_context(CutProxy("127.0.0.1", *ports, resp=resp))

        self.redis[role.name] = await made(*self.servers.ports, resp=True)
        if role.is_bridge:
            http = int(self.feishu.url.rpartition(":")[2])
            self.discovery[role.name] = await made(http, resp=False)
            link = await made(self.feishu.ws_port, resp=False)
            self.feishu_links[role.name] = self.feishu.relays[self._host(role.name)] = link

    async def _supervise(self) -> None:
        ended: dict[str, float] = {}
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            for name, actor in list(self.actors.items()):
                code = actor.process.poll()
                if code is None:
                    continue
                if name not in ended:
                    ended[name] = now
                    self.exits.append(Exit(name, code, now, now - self.started[name]))
                if name not in self.away and now - ended[name] >= RESTART_DELAY:
                    del ended[name]
                    self.start(name)
