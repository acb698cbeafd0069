"""Faults of Sentinels and of a Cluster: whom they name as the primary, and what becomes of it."""

from __future__ import annotations

import os
import signal

from tests.chaos.cluster import ClusterServers
from tests.chaos.fault import ALL, Fault
from tests.chaos.faults.redis import hurting_all
from tests.chaos.play import Play
from tests.chaos.sentinels import SentinelServers

ASLEEP = 1.5
"""Seconds a Sentinel stands still at most; after two it would take no part for half a minute."""


async def primary_killed(play: Play) -> None:
    """The primary is killed and its replica promoted; when it comes back it has to follow."""
    await play.servers.in_sync()
    async with hurting_all(play, "14 primary killed"):
        play.servers.kill()
        await play.servers.promoted()
        await play.pause(0.0, 1.0)
        await play.servers.start()


async def primary_asleep(play: Play) -> None:
    """The primary stands still until its replica is promoted; then there are two for a while."""
    await play.servers.in_sync()
    pid = play.servers.primary.pid
    async with hurting_all(play, "14 primary asleep"):
        os.kill(pid, signal.SIGSTOP)
        await play.servers.promoted()
        await play.pause(0.0, 1.0)
        os.kill(pid, signal.SIGCONT)
        await play.pause(0.0, 2.0)


async def sentinel_promotes(play: Play) -> None:
    """A Sentinel is asked for a fail-over; it does not have the primary hold writes back."""
    async with hurting_all(play, "14 Sentinel promotes"):
        await play.servers.fail_over()


async def replica_takes_over(play: Play) -> None:
    """A replica in a Cluster takes over, and the primary holds writes back until it has all."""
    await play.servers.in_sync()
    with play.hurting("14 replica takes over"):
        await play.servers.fail_over()
        await play.servers.settled()


async def server_hidden(play: Play) -> None:
    """One actor sees one server no more, be it the primary or one that it asks for it."""
    name = play.random.choice(list(play.cast.roles))
    proxy = play.cast.redis[name]
    with play.hurting("15 server hidden", name):
        proxy.refuse(play.random.choice(list(proxy.ports)))
        await play.pause(0.5, 3.0)
        proxy.accept()


async def sentinels_killed(play: Play) -> None:
    """Each Sentinel is away for a moment, one after the other; nobody counts as disturbed."""
    servers = play.servers
    assert isinstance(servers, SentinelServers)
    for sentinel in play.random.sample(servers.sentinels, len(servers.sentinels)):
        if play.random.random() < 0.5:
            sentinel.kill()
            await play.pause(0.1, ASLEEP)
            await servers.start_sentinel(sentinel)
        else:
            os.kill(sentinel.pid, signal.SIGSTOP)
            await play.pause(0.1, ASLEEP)
            os.kill(sentinel.pid, signal.SIGCONT)
        await servers.settled()


async def slot_moved(play: Play) -> None:
    """The slot of the app is migrated to another primary of the Cluster, key by key."""
    servers = play.servers
    assert isinstance(servers, ClusterServers)
    with play.hurting("32 slot moved"):
        await servers.move_slot(play.random.choice(servers.others))
        await servers.settled()


async def other_shard_lost(play: Play) -> None:
    """A primary that has none of our keys is killed: the Cluster may refuse us, too."""
    servers = play.servers
    assert isinstance(servers, ClusterServers)
    node = play.random.choice(servers.others)
    with play.hurting("32 other shard lost"):
        node.kill()
        await play.pause(0.5, 3.0)
        await servers.start_node(node)
        await servers.settled()


FAULTS = (
    Fault(14, "primary killed", primary_killed, ALL, needs=("promoting",)),
    Fault(14, "primary asleep", primary_asleep, ALL, needs=("promoting",)),
    Fault(14, "Sentinel promotes", sentinel_promotes, ALL, needs=("sentinel", "promoting")),
    Fault(14, "replica takes over", replica_takes_over, ALL, needs=("cluster",)),
    Fault(15, "server hidden", server_hidden, ALL, needs=("seeds",)),
    Fault(31, "Sentinels killed", sentinels_killed, ALL, needs=("sentinel",)),
    Fault(32, "slot moved", slot_moved, ALL, needs=("cluster",)),
    Fault(32, "other shard lost", other_shard_lost, ALL, needs=("cluster",)),
)
