"""Faults of workers and of processes in general."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress

from tests.chaos.fault import ALL, INPUT, WORKERS, Fault
from tests.chaos.play import Play

REDELIVERY = 5.0
"""Seconds promised on top of the event lease."""

BACKLOG = 3.0
"""Seconds of tolerance: where events wait for workers, retries wait as well."""

LONG = 1.0
"""Seconds of the handlers that a kill is to interrupt."""

EXIT = 5.0
"""Seconds that any process may take to end after a signal; handlers take less than half of one."""

DYING = 0.1
"""Seconds in which the children of a killed worker die with it."""


async def interruptible(play: Play, worker: str) -> list[int]:
    """Have this worker run long handlers; the pids of its processes."""
    family = [play.cast.actors[worker].pid, *play.cast.children(worker)]
    for _ in range(6):
        play.generator.push("chaos.slow", seconds=LONG)
    await play.until(lambda: play.running_in(family, "slow"), 3.0)
    return family


async def worker_killed(play: Play) -> None:
    """Another worker takes over what it was running."""
    worker = play.worker()
    family = await interruptible(play, worker)
    began = time.monotonic()
    with play.hurting("09 worker killed", worker):
        play.cast.signal(worker, signal.SIGKILL)
        await asyncio.sleep(DYING)
        await redelivered(play, "09 worker killed", play.running_in(family), began)


async def child_killed(play: Play) -> None:
    """The pool loses one child in the middle of a handler."""
    worker = "prefork"
    await interruptible(play, worker)
    began = time.monotonic()
    with play.hurting("09 pool child killed", worker):
        children = play.cast.children(worker)
        if not children:
            return  # another fault has just ended the whole worker
        pid = play.random.choice(children)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(DYING)
        await redelivered(play, "09 pool child killed", play.running_in([pid]), began)


async def redelivered(play: Play, fault: str, events: set[str], began: float) -> None:
    """Wait until the events have been started again."""
    if events:
        limit = play.settings["event_lease"] + REDELIVERY + BACKLOG
        await play.recovers("redelivery", fault, limit, play.started_since(events, began), began)


async def worker_paused(play: Play) -> None:
    """A worker sleeps for longer than its event lease, and goes on as if nothing was."""
    worker = play.worker()
    with play.hurting("02 worker paused", worker):
        family = [play.cast.actors[worker].pid, *play.cast.children(worker)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        await play.pause(0.5, play.settings["event_lease"] * 2)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await play.pause(0.5, 0.5)


async def crash_poison(play: Play) -> None:
    """Events that kill the process of their handler end as dead letters."""
    for _ in range(play.random.randint(1, 2)):
        play.generator.push("chaos.crash")


async def no_workers(play: Play) -> None:
    """All workers are stopped, and come back after a while."""
    with play.hurting("16 no workers", *play.cast.workers):
        play.cast.away |= set(play.cast.workers)
        for worker in play.cast.workers:
            play.cast.signal(worker, signal.SIGTERM)
        await play.pause(2.0, 4.0)
        play.cast.away -= set(play.cast.workers)
        await play.well()


async def signalled_twice(play: Play) -> None:
    """Anybody gets two signals to end, at any moment of its life, and ends."""
    name = play.random.choice(list(play.cast.roles))
    first, second = play.random.choices((signal.SIGTERM, signal.SIGINT), k=2)
    began = time.monotonic()
    with play.hurting("28 signalled twice", name):
        pid = play.cast.actors[name].pid
        play.cast.signal(name, first)
        await play.pause(0.0, 0.3)
        if play.cast.actors[name].pid == pid:
            play.cast.signal(name, second)
        await play.recovers(
            "exit", "28 signalled twice", EXIT, lambda: play.cast.ended_since(name, began), began
        )
        if play.cast.actors[name].pid == pid:
            play.cast.signal(name, signal.SIGKILL)  # as systemd would
        if play.random.random() < 0.5:  # once more, while it starts
            await play.until(lambda: play.cast.running(name), 2.0)
            await play.pause(0.0, 1.0)
            play.cast.signal(name, first)
            await play.pause(0.0, 0.5)


FAULTS = (
    Fault(2, "worker paused", worker_paused, WORKERS),
    Fault(9, "worker killed", worker_killed, WORKERS),
    Fault(9, "pool child killed", child_killed, WORKERS, needs=("prefork",)),
    Fault(10, "crash poison", crash_poison, INPUT),
    Fault(16, "no workers", no_workers, WORKERS, slow=True),
    Fault(28, "signalled twice", signalled_twice, ALL),
)
