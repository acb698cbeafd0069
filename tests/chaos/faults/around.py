"""Faults of what is around the actors: clocks, the collector of traces, time itself."""

from __future__ import annotations

from tests.chaos.fault import INPUT, Fault
from tests.chaos.play import Play

HOUR = 3600.0


async def clock_wrong(play: Play) -> None:
    """One actor's wall clock jumps by an hour, and back; nobody counts as disturbed."""
    name = play.random.choice(list(play.cast.roles))
    play.cast.set_clock(name, play.random.choice((HOUR, -HOUR)))
    await play.pause(1.0, 3.0)
    play.cast.set_clock(name, 0.0)


async def collector_silent(play: Play) -> None:
    """The collector takes connections and answers nothing; nobody counts as disturbed."""
    if play.collector is None:
        return
    play.collector.black_hole()
    await play.pause(2.0, 4.0)
    play.collector.cut()
    play.collector.pass_on()


async def soak(play: Play) -> None:
    """No fault: it has descriptors, threads, memory and keys measured to the end of the run."""
    play.soak.measuring = True


FAULTS = (
    Fault(17, "clock wrong", clock_wrong, INPUT),
    Fault(27, "collector silent", collector_silent, INPUT),
    Fault(29, "soak", soak, INPUT),
)
