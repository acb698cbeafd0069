"""Sets everything up for a play, waits until all are ready, and clears it away. It hurts nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flybridge.bridge.local.feishu.ledger import Ladder
from tests.chaos import sink
from tests.chaos.auditor import Auditor
from tests.chaos.cast import Cast, ChaosStage, ProxiedFeishu
from tests.chaos.casting import Casting, Role
from tests.chaos.cluster import ClusterServers
from tests.chaos.play import Play, offset
from tests.chaos.proxy import CutProxy
from tests.chaos.sentinels import SentinelServers
from tests.chaos.servers import Servers
from tests.project import ROOT

RUNGS = (0.5, 1.0, 2.0, *[4.0] * 200)
"""Seconds before each re-push: the ladder, scaled, and so long that nothing is given up."""

SETTINGS = {
    "event_lease": 2,
    "lease_duration": 2,
    "renew_deadline": 1.2,
    "retry_period": 0.3,
    "retention": 30,
}

READY = 40.0
"""Seconds for all processes to start on a busy machine."""

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACED = {
    # All events would keep one core busy with spans alone.
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.05",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
}


@asynccontextmanager
async def playing(
    directory: Path,
    seed: int,
    *,
    product: Path = ROOT,
    casting: Casting | None = None,
    roles: tuple[Role, ...] = (),
    binary: str | None = None,
    traced: bool = False,
    **settings: Any,
) -> AsyncIterator[Play]:
    """Set everything up, wait until all are ready, and clear it away after the block.

    Args:
        directory: there already; for logs, deeds and Redis' files.
        product: the tree whose `bridge`, `workers` and `handlers` are played.
        casting: who plays, before which Redis; None: a default one.
        roles: who plays in place of its roles.
        binary: of Redis.
        traced: have actors send spans to a collector.
        settings: for all actors, on top of `SETTINGS`.
    """
    casting = casting or Casting()
    async with AsyncExitStack() as stack:
        collector = await _collector(stack) if traced else None
        told = {**SETTINGS, **(TRACED | {ENDPOINT: _url(collector)} if collector else {})}
        servers = await stack.enter_async_context(servers_of(casting, directory, binary))
        feishu = await stack.enter_async_context(ProxiedFeishu())
        feishu.ledger.ladder = replace(Ladder(), rungs=RUNGS)
        feishu.faults.config(PingInterval=1, ReconnectInterval=1)
        stage = ChaosStage(directory, servers.primary, feishu, product=product)
        cast = Cast(stage, servers, feishu, roles or casting.roles, told | settings)
        await stack.enter_async_context(cast)
        auditor = Auditor(lambda: servers.primary.port, stage.keys, offset())
        stack.enter_context(auditor)
        play = Play(directory, servers, feishu, cast, auditor, seed, collector)
        watching = asyncio.create_task(play.observe(), name="observer")
        stack.callback(watching.cancel)
        assert await play.well(READY), f"the cast is not ready; see the logs in {directory}"
        yield play


def servers_of(casting: Casting, directory: Path, binary: str | None) -> Servers:
    """The Redis of a casting, set up as the README advises for it."""
    # What a primary takes without its replica is thrown away if that one is promoted.
    settings = {"min-replicas-to-write": "1"} if casting.promoting else {}
    if casting.topology == "single":
        return Servers(directory, binary)
    made = SentinelServers if casting.topology == "sentinel" else ClusterServers
    return made(directory, binary, settings, promoting=casting.promoting)


async def _collector(stack: AsyncExitStack) -> CutProxy:
    """The way to a collector of traces."""
    server = await sink.serve()
    stack.callback(server.close)
    port = server.sockets[0].getsockname()[1]
    return await stack.enter_async_context(CutProxy("127.0.0.1", port, resp=False))


def _url(proxy: CutProxy) -> str:
    return f"http://{proxy.host}:{proxy.port}"
