"""Deals the chosen faults, shuffled by the seed, over and over, until the events are through.

Mostly one at a time with quiet in between, so that recoveries can be timed; now and then two at
once, or the next one before everybody is well again.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterable
from random import Random

from tests.chaos.casting import Casting
from tests.chaos.fault import Fault
from tests.chaos.faults import around, bridges, input, redis, topologies, workers
from tests.chaos.play import Play

FAULTS: tuple[Fault, ...] = tuple(
    sorted(
        (
            *around.FAULTS,
            *bridges.FAULTS,
            *input.FAULTS,
            *redis.FAULTS,
            *topologies.FAULTS,
            *workers.FAULTS,
        ),
        key=lambda fault: (fault.number, fault.name),
    )
)

TOGETHER = 0.35
"""How often a second fault comes with the first."""

IMPATIENT = 0.25
"""How often the next one does not wait for everybody to be well."""


def chosen(numbers: str) -> list[Fault]:
    """The faults of `1,7-9,30`; of an empty text all.

    Raises:
        ValueError: there is no such fault; the sentence lists what there is.
    """
    wanted: set[int] = set()
    for part in filter(None, numbers.replace(" ", "").split(",")):
        first, _, last = part.partition("-")
        wanted |= set(range(int(first), int(last or first) + 1))
    unknown = wanted - {fault.number for fault in FAULTS}
    if unknown:
        listed = ", ".join(map(str, FAULTS))
        raise ValueError(f"no fault has the number {min(unknown)}; there are: {listed}")
    return [fault for fault in FAULTS if not wanted or fault.number in wanted]


def fitting(faults: Iterable[Fault], casting: Casting) -> list[Fault]:
    """Those that have something to do in this casting."""
    return [fault for fault in faults if casting.members.issuperset(fault.needs)]


class Nemesis:
    """Plays faults on a play.

    Args:
        quiet: least and most seconds from the end of one to the next.
    """

    def __init__(
        self, play: Play, faults: Iterable[Fault], seed: int, *, quiet: tuple[float, float]
    ) -> None:
        self._play = play
        self._faults = list(faults)
        self._random = Random(seed)
        self._quiet = quiet
        self.failed: list[str] = []
        """Faults that broke down: mistakes of the suite, not of the product."""
        self.enough = asyncio.Event()
        """To be set when the run may end; each fault still has its turn."""

    async def run(self) -> None:
        """Go on until it is enough."""
        first = True
        while self._faults and (first or not self.enough.is_set()):
            deck = self._random.sample(self._faults, len(self._faults))
            while deck and (first or not self.enough.is_set()):
                await self._turn(deck)
            first = False

    async def _turn(self, deck: list[Fault]) -> None:
        hand = [deck.pop()]
        if self._random.random() < TOGETHER:
            free = [fault for fault in deck if not fault.scope & hand[0].scope]
            if free:
                deck.remove(free[0])
                hand.append(free[0])
        await asyncio.gather(*map(self._do, hand))
        if any(fault.scope for fault in hand) and self._random.random() > IMPATIENT:
            await self._play.well()
        await self._play.pause(*self._quiet)

    async def _do(self, fault: Fault) -> None:
        self._play.counts[str(fault)] += 1
        try:
            await fault.do(self._play)
        except Exception:
            # Whatever went wrong, the run goes on, and is a failure in the end.
            self.failed.append(f"{fault}: {traceback.format_exc()}")
