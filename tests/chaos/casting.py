"""Which parts there are to play, and which of them a seed has played: its casting. Pure, no I/O.

The processes themselves are in `cast`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

CELERY = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "threads": ("--pool", "threads", "--concurrency", "4"),
    "asyncio": ("--pool", "asyncio", "--concurrency", "100"),
}
"""Pools of `flybridge worker`."""

EMBEDDED = ("inline", "service")
"""What programs of `actors/embedding.py` have in them: a worker; a worker and a bridge."""

POOLS = (*CELERY, *EMBEDDED)

TOPOLOGIES = {"single": 2, "sentinel": 1, "cluster": 1}
"""How Redis is set up, and how often in proportion: one primary with a replica; these behind
Sentinels; a Cluster."""

DURABILITIES = ("none", "aof", "replica:1")

CROWD = 0.25
"""Share of the seeds that have three workers."""

THREADS = {"asyncio": 100, "inline": 100, "service": 100}
"""Pools whose process starts threads as they are needed: how many."""

LANES = 24
"""Connections that a bridge opens as they are needed, where it waits for more than a reply."""


@dataclass(frozen=True, slots=True)
class Role:
    """A part that one process at a time plays."""

    name: str
    arguments: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    growth: Mapping[str, int] = field(default_factory=dict)
    """Threads and descriptors that come when they are first needed."""

    @property
    def is_bridge(self) -> bool:
        return self.arguments[-1] in ("run", "service")

    @property
    def is_worker(self) -> bool:
        return self.arguments[-1] != "run"


@dataclass(frozen=True, slots=True)
class Casting:
    """The pools of a play's workers, what its bridges wait for before an ack, and their Redis."""

    pools: tuple[str, ...] = ("prefork", "threads")
    durability: str = "none"
    topology: str = "single"

    def __str__(self) -> str:
        pools = ", ".join(self.pools)
        return f"pools {pools}; durability {self.durability}; topology {self.topology}"

    @property
    def promoting(self) -> bool:
        """Whether Redis by itself promotes the replica of a dead primary.

        Only where an ack waits for the replica: elsewhere that may lose what was acked.
        """
        return self.topology != "single" and self.durability == "replica:1"

    @property
    def members(self) -> frozenset[str]:
        """What a fault may need, see `Fault.needs`."""
        derived = {"seeds"} if self.topology != "single" else set()
        derived |= {"promoting"} if self.promoting else set()
        return frozenset((*self.pools, self.durability, self.topology, *derived))

    @property
    def roles(self) -> tuple[Role, ...]:
        """Two bridges, of which a service may be one, and a worker for each pool."""
        names = ("bridge-1",) if "service" in self.pools else ("bridge-1", "bridge-2")
        told, growth = {"durability": self.durability}, self._lanes
        bridges = (Role(name, ("run",), told, growth) for name in names)
        return (*bridges, *map(self._worker, self.pools))

    @property
    def _lanes(self) -> dict[str, int]:
        return {} if self.durability == "none" else {"descriptors": LANES}

    def _worker(self, pool: str) -> Role:
        told, growth = {"log_level": "debug"}, {"threads": THREADS.get(pool, 0)}
        if pool == "service":
            told, growth = told | {"durability": self.durability}, growth | self._lanes
        if pool in EMBEDDED:
            return Role(pool, ("embedding", pool), told, growth)
        # Where prefork plays too, events that kill their process cost no whole worker each time.
        queues = ("--queues", "default") if pool != "prefork" and "prefork" in self.pools else ()
        return Role(pool, ("worker", *CELERY[pool], *queues), told, growth)


def casting_of(
    seed: int,
    pools: Sequence[str] | None = None,
    durability: str | None = None,
    topology: str | None = None,
) -> Casting:
    """The casting of a seed, or what is given in place of parts of it.

    Raises:
        ValueError: there is no such pool, durability or topology, or a pool is given twice.
    """
    random = Random(f"the casting of seed {seed}")
    count = 3 if random.random() < CROWD else 2
    drawn = Casting(
        tuple(sorted(random.sample(POOLS, count), key=POOLS.index)),
        random.choice(DURABILITIES),
        *random.choices(tuple(TOPOLOGIES), tuple(TOPOLOGIES.values())),
    )
    chosen = Casting(
        tuple(pools or drawn.pools), durability or drawn.durability, topology or drawn.topology
    )
    _check(chosen)
    return chosen


def _check(chosen: Casting) -> None:
    if unknown := set(chosen.pools) - set(POOLS):
        raise ValueError(f"no pool is called {min(unknown)}; there are: {', '.join(POOLS)}")
    if len(set(chosen.pools)) < len(chosen.pools):
        raise ValueError("a pool is given twice; give each once")
    if chosen.durability not in DURABILITIES:
        known = ", ".join(DURABILITIES)
        raise ValueError(f"no durability is called {chosen.durability}; there are: {known}")
    if chosen.topology not in TOPOLOGIES:
        known = ", ".join(TOPOLOGIES)
        raise ValueError(f"no topology is called {chosen.topology}; there are: {known}")
