"""Faults of Redis, and of what is between it and everybody."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from tests.chaos.fault import ALL, INPUT, Fault
from tests.chaos.play import Play

BRIDGE_COMMANDS = ("EVALSHA publish", "EVALSHA keep_letter", "EVALSHA lease", "SCRIPT LOAD")
WAITING: dict[object, tuple[str, ...]] = {"aof": ("WAITAOF",), "replica:1": ("WAIT",)}
"""By durability."""

WORKER_COMMANDS = (
    "EVALSHA claim", "EVALSHA settle", "EVALSHA renew", "EVALSHA due", "XREADGROUP", "XACK",
    "XAUTOCLAIM", "XCLAIM", "BRPOP",
)  # fmt: skip

WRITES = frozenset(
    b"EVALSHA EVAL XADD XACK XCLAIM XAUTOCLAIM XREADGROUP XGROUP SET HSET DEL SADD ZADD LPUSH BRPOP"
    b" SREM ZREM HDEL EXPIRE".split()
)

BUSY = """
local last = redis.call('TIME')
local until_ms = last[1] * 1000 + math.floor(last[2] / 1000) + ARGV[1]
while true do
  local now = redis.call('TIME')
  if now[1] * 1000 + math.floor(now[2] / 1000) > until_ms then return 1 end
end
"""
"""A script that only reads, for so many ms."""

TIMEOUT = 5.0
"""Seconds after which the actors' clients give a reply up."""


@asynccontextmanager
async def hurting_all(play: Play, fault: str) -> AsyncIterator[None]:
    """Everybody is hurt while the block runs, and until all agree on who the primary is.

    Where that is another one by then, it has not all that the first was told.
    """
    before = play.servers.primary
    with play.hurting(fault) as marks:
        yield
        await play.servers.settled()
        marks["forgets"] = play.servers.primary is not before


async def half_open(play: Play) -> None:
    """One actor's connections carry nothing, for longer than a reply may take, and then break."""
    name = play.random.choice(list(play.cast.roles))
    with play.hurting("07 Redis half open", name):
        play.cast.redis[name].black_hole()
        await play.pause(TIMEOUT, TIMEOUT + 2.0)
        play.cast.redis[name].cut()
        play.cast.redis[name].pass_on()


async def replies_lost(play: Play) -> None:
    """One command's reply is lost together with the connection; nobody counts as disturbed."""
    for name, role in play.cast.roles.items():
        waited_for = WAITING.get(role.settings.get("durability"), ())
        commands = (*BRIDGE_COMMANDS, *waited_for) if role.is_bridge else ()
        commands += WORKER_COMMANDS if role.is_worker else ()
        play.cast.redis[name].drop_reply(play.random.choice(commands))
    await play.pause(1.0, 2.0)


async def away(play: Play, fault: str) -> None:
    """Leave Redis down for a while, and start it; it answers before we know that it does."""
    with play.hurting(fault, keeps_nothing=True):
        await play.pause(0.2, 3.0)
    await play.servers.start()


async def restarted(play: Play) -> None:
    """Redis is stopped in good order, stays away, and comes back with all it had."""
    async with hurting_all(play, "11 Redis restarted"):
        await play.servers.stop()
        await away(play, "11 Redis restarted")


async def killed(play: Play) -> None:
    """Redis is killed; its append-only file holds all it has acknowledged."""
    async with hurting_all(play, "11 Redis killed"):
        play.servers.kill()
        await away(play, "11 Redis killed")


async def full(play: Play) -> None:
    """Redis takes no more events, but workers go on: what they write is allowed."""
    client = play.servers.client()
    with play.hurting("12 Redis full", *play.cast.bridges):
        used = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory", used + 65_536)
        await play.pause(2.0, 4.0)
        await client.config_set("maxmemory", 0)


async def busy(play: Play) -> None:
    """A long script: Redis answers BUSY to all others."""
    client = play.servers.client()
    async with hurting_all(play, "13 Redis busy"):
        await client.config_set("busy-reply-threshold", 50)
        with suppress(RedisError):
            await client.eval(BUSY, 0, play.random.randint(300, 2500))
        await client.config_set("busy-reply-threshold", 5000)


async def asleep(play: Play) -> None:
    """Redis stands still, as by a slow fork or a paused machine."""
    pid = play.servers.primary.pid
    async with hurting_all(play, "13 Redis asleep"):
        os.kill(pid, signal.SIGSTOP)
        await play.pause(0.3, 3.0)
        os.kill(pid, signal.SIGCONT)


async def clients_paused(play: Play) -> None:
    """Redis holds commands back, all or only writes."""
    duration = play.random.randint(300, 2500)
    mode = play.random.choice(("ALL", "WRITE"))
    async with hurting_all(play, "13 clients paused"):
        await play.servers.client().execute_command("CLIENT", "PAUSE", duration, mode)
        await asyncio.sleep(duration / 1000)


async def failed_over(play: Play) -> None:
    """The replica is promoted; for a moment everybody still talks to the old primary."""
    with play.hurting("14 Redis failed over"):
        await play.servers.in_sync()
        await play.servers.fail_over()
        await play.pause(0.0, 0.5)
        for proxy in play.cast.redis.values():
            proxy.retarget(play.servers.primary.port)


async def replica_asleep(play: Play) -> None:
    """The replica stands still: what it does not have is not acked."""
    pid = play.servers.replica.pid
    with play.hurting("14 replica asleep", *play.cast.bridges, keeps_nothing=True):
        os.kill(pid, signal.SIGSTOP)
        await play.pause(1.0, 4.0)
    os.kill(pid, signal.SIGCONT)
    await play.servers.settled()


async def primary_lost(play: Play) -> None:
    """The replica is promoted behind a partition; what its primary still takes is lost with it."""
    await play.servers.in_sync()
    with play.hurting("14 primary lost", keeps_nothing=True, forgets=True):
        await play.servers.part()
        await play.pause(0.0, 1.0)
        play.servers.lose()
        for proxy in play.cast.redis.values():
            proxy.retarget(play.servers.primary.port)
    await play.servers.rejoin()


async def disk_full(play: Play) -> None:
    """Redis refuses every write because its disk is full."""
    error = b"-MISCONF Errors writing to the AOF file: No space left on device"
    with play.hurting("25 disk full"):
        for proxy in play.cast.redis.values():
            proxy.answer(error, lambda command: command[0].upper() in WRITES)
        await play.pause(0.5, 3.0)
        for proxy in play.cast.redis.values():
            proxy.answer(None)


async def scripts_flushed(play: Play) -> None:
    """Redis forgets all scripts; nobody counts as disturbed."""
    # It may be busy by another fault, and then it forgets nothing.
    with suppress(RedisError):
        await play.servers.client().script_flush()


FAULTS = (
    Fault(7, "Redis half open", half_open, ALL, slow=True),
    Fault(8, "replies lost", replies_lost, ALL),
    Fault(11, "Redis restarted", restarted, ALL),
    Fault(11, "Redis killed", killed, ALL),
    Fault(12, "Redis full", full, ALL),
    Fault(13, "Redis busy", busy, ALL),
    Fault(13, "Redis asleep", asleep, ALL),
    Fault(13, "clients paused", clients_paused, ALL),
    Fault(14, "Redis failed over", failed_over, ALL, needs=("single",)),
    Fault(14, "primary lost", primary_lost, ALL, needs=("single", "replica:1")),
    Fault(14, "replica asleep", replica_asleep, ALL, needs=("replica:1",)),
    Fault(25, "disk full", disk_full, ALL),
    Fault(30, "scripts flushed", scripts_flushed, INPUT),
)
