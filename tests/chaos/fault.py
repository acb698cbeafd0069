"""What a fault is. The faults themselves are in `faults/`, their order in `nemesis`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.play import Play


@dataclass(frozen=True, slots=True)
class Fault:
    """One of the table's faults; a row may have several."""

    number: int
    """The row of the fault table."""
    name: str
    do: Callable[[Play], Awaitable[None]]
    """Hurts, waits, heals; notes whom it disturbed, and how long the recovery took."""
    scope: frozenset[str] = frozenset()
    """What it works on: two faults with a scope in common do not run at the same time."""
    needs: tuple[str, ...] = ()
    """Pools, a durability, a topology without which there is nothing to do: `Casting.members`."""
    slow: bool = False
    """Takes more than five seconds: not for the short run."""

    def __str__(self) -> str:
        return f"{self.number:02d} {self.name}"


BRIDGES = frozenset({"bridges"})
WORKERS = frozenset({"workers"})
INPUT: frozenset[str] = frozenset()
"""Only events of a kind: goes together with everything."""
ALL = BRIDGES | WORKERS | {"redis"}
