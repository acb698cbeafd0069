"""Faults of bridges, and of what is between them and Feishu."""

from __future__ import annotations

import signal
import time

from flybridge.bridge.local.feishu.faults import CONNECTION_LIMIT
from tests.chaos.actors.launch import PATIENCE, PONG_TIMEOUT, STALL
from tests.chaos.fault import BRIDGES, Fault
from tests.chaos.play import Play

START = 2.0
"""Seconds of tolerance for discovery, connecting and a busy machine."""

CLEAN = 2.0
"""Seconds promised for a hand-over."""


def take_over(play: Play) -> float:
    """Seconds promised until another bridge is connected."""
    return float(play.settings["lease_duration"] + play.settings["retry_period"]) + START


async def leader_killed(play: Play) -> None:
    """A standby takes over when the lease has run out."""
    leader = await play.leader()
    began = time.monotonic()
    with play.hurting("01 leader killed", leader):
        play.cast.signal(leader, signal.SIGKILL)
        await play.recovers(
            "take-over", "01 leader killed", take_over(play), play.connected_since(began), began
        )


async def leader_paused(play: Play) -> None:
    """The lease runs out; the sleeper wakes up as a zombie."""
    leader = await play.leader()
    began = time.monotonic()
    with play.hurting("02 leader paused", leader):
        play.cast.signal(leader, signal.SIGSTOP)
        await play.recovers(
            "take-over", "02 leader paused", take_over(play), play.connected_since(began), began
        )
        await play.pause(0.0, 1.0)
        play.cast.signal(leader, signal.SIGCONT)
        await play.pause(0.3, 0.6)


async def leader_terminated(play: Play) -> None:
    """The leader releases its lease: hand-over."""
    leader = await play.leader()
    began = time.monotonic()
    with play.hurting("03 leader terminated", leader):
        play.cast.signal(leader, signal.SIGTERM)
        await play.recovers(
            "hand-over", "03 leader terminated", CLEAN, play.connected_since(began), began
        )


async def leader_without_redis(play: Play) -> None:
    """It must step down, for another one can lead."""
    leader = await play.leader()
    with play.hurting("04 leader without Redis", leader):
        play.cast.redis[leader].refuse()
        await play.pause(0.5, 3.5)
        play.cast.redis[leader].accept()


async def leader_without_feishu(play: Play) -> None:
    """After some patience it lets another host try."""
    leader = await play.leader()
    links = play.cast.feishu_links[leader], play.cast.discovery[leader]
    began = time.monotonic()
    with play.hurting("05 leader without Feishu", leader):
        for link in links:
            link.refuse()
        await play.recovers(
            "leader elsewhere",
            "05 leader without Feishu",
            PATIENCE + START + 2.0,  # and one more attempt, after a pause of two seconds
            play.connected_since(began, other_than=leader),
            began,
        )
        for link in links:
            link.accept()


async def websocket_half_open(play: Play) -> None:
    """No packet says that the connection is gone; the missing pong does."""
    leader = await play.leader()
    interval = play.feishu.config["PingInterval"]
    began = time.monotonic()
    with play.hurting("06 WebSocket half open", leader):
        play.feishu.faults.freeze(seconds=4.0)
        await play.recovers(
            "half-open connection noticed",
            "06 WebSocket half open",
            interval + PONG_TIMEOUT + START,
            play.connected_since(began),
            began,
        )


async def one_bridge_partitioned(play: Play) -> None:
    """One bridge, leader or not, sees Redis no more; the other one does."""
    name = play.random.choice(play.cast.bridges)
    with play.hurting("15 one bridge partitioned", name):
        play.cast.redis[name].black_hole()
        await play.pause(1.0, 4.0)
        play.cast.redis[name].cut()
        play.cast.redis[name].pass_on()


async def handshake_refused(play: Play) -> None:
    """Discovery or the upgrade are refused, for a few times; then all is well."""
    faults, pick = play.feishu.faults, play.random.randrange(5)
    with play.hurting("23 handshake refused", *play.cast.bridges):
        if pick == 0:
            faults.refuse_discovery(code=1, times=2)
        elif pick == 1:
            faults.refuse_discovery(status=500, times=2)
        elif pick == 2:
            faults.refuse_discovery(code=CONNECTION_LIMIT, times=1)
        elif pick == 3:
            faults.refuse_upgrade(times=2)
        else:
            faults.refuse_upgrade(status=403, times=2)
        faults.cut()
        await play.until(lambda: not faults.armed() and play.connected(), 6.0)
        faults.clear()


async def loop_blocked(play: Play) -> None:
    """A leader's event loop stands still for longer than its lease."""
    leader = await play.leader()
    began = time.monotonic()
    with play.hurting("24 event loop blocked", leader):
        play.cast.signal(leader, signal.SIGUSR2)
        await play.recovers(
            "take-over",
            "24 event loop blocked",
            take_over(play),
            play.connected_since(began, other_than=leader),
            began,
        )
        await play.until(lambda: time.monotonic() - began > STALL + 0.5, STALL)


FAULTS = (
    Fault(1, "leader killed", leader_killed, BRIDGES),
    Fault(2, "leader paused", leader_paused, BRIDGES),
    Fault(3, "leader terminated", leader_terminated, BRIDGES),
    Fault(4, "leader without Redis", leader_without_redis, BRIDGES),
    Fault(5, "leader without Feishu", leader_without_feishu, BRIDGES, slow=True),
    Fault(6, "WebSocket half open", websocket_half_open, BRIDGES),
    Fault(15, "one bridge partitioned", one_bridge_partitioned, BRIDGES),
    Fault(23, "handshake refused", handshake_refused, BRIDGES),
    Fault(24, "event loop blocked", loop_blocked, BRIDGES),
)
