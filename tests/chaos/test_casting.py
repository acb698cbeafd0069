"""Which cast a seed has. Pure: no process is started."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.casting import DURABILITIES, POOLS, Casting, casting_of
from tests.chaos.nemesis import FAULTS, fitting

SEEDS = range(400)


def test_a_seed_always_has_the_same_casting() -> None:
    assert [casting_of(seed) for seed in SEEDS] == [casting_of(seed) for seed in SEEDS]
    # Written down, for another Python must not have another play for it.
    assert casting_of(403) == Casting(("prefork", "inline", "service"), "aof")


def test_seeds_have_every_pool_beside_every_other_and_every_durability() -> None:
    castings = [casting_of(seed) for seed in SEEDS]

    assert {len(casting.pools) for casting in castings} == {2, 3}
    pairs = Counter((one, two) for each in castings for one in each.pools for two in each.pools)
    assert set(pairs) == {(one, two) for one in POOLS for two in POOLS}
    found = {(each.durability, pool) for each in castings for pool in each.pools}
    assert found == {(durability, pool) for durability in DURABILITIES for pool in POOLS}


def test_what_is_given_takes_the_place_of_what_the_seed_has() -> None:
    drawn = casting_of(1)

    assert casting_of(1, ("asyncio", "inline")) == Casting(("asyncio", "inline"), drawn.durability)
    assert casting_of(1, None, "aof") == Casting(drawn.pools, "aof")
    with pytest.raises(ValueError, match="no pool is called gevent; there are: prefork, threads"):
        casting_of(1, ("gevent",))
    with pytest.raises(ValueError, match="given twice"):
        casting_of(1, ("inline", "inline"))
    with pytest.raises(ValueError, match="no durability is called disk; there are: none, aof"):
        casting_of(1, None, "disk")


def test_the_header_of_a_run_tells_the_casting() -> None:
    told = str(Casting(("asyncio", "inline"), "replica:1"))

    assert told == "pools asyncio, inline; durability replica:1"


def test_there_are_two_bridges_and_a_worker_of_each_pool() -> None:
    roles = Casting(("prefork", "asyncio", "inline")).roles

    assert [role.name for role in roles if role.is_bridge] == ["bridge-1", "bridge-2"]
    assert [role.name for role in roles if role.is_worker] == ["prefork", "asyncio", "inline"]


def test_a_service_is_a_bridge_and_a_worker() -> None:
    roles = Casting(("threads", "service")).roles

    assert [role.name for role in roles if role.is_bridge] == ["bridge-1", "service"]
    assert [role.name for role in roles if role.is_worker] == ["threads", "service"]


def test_every_bridge_is_told_what_to_wait_for_and_no_worker_alone() -> None:
    for role in Casting(POOLS, "replica:1").roles:
        assert ("durability" in role.settings) == role.is_bridge
        assert role.settings.get("durability", "replica:1") == "replica:1"


def test_events_that_kill_their_process_go_to_prefork_where_it_plays() -> None:
    def queues(*pools: str) -> dict[str, bool]:
        roles = Casting(pools).roles
        return {role.name: "--queues" in role.arguments for role in roles if role.is_worker}

    assert queues("prefork", "threads", "asyncio") == {
        "prefork": False, "threads": True, "asyncio": True,
    }  # fmt: skip
    assert queues("threads", "asyncio") == {"threads": False, "asyncio": False}


def test_a_fault_is_left_out_where_it_has_nothing_to_hurt() -> None:
    def left_out(casting: Casting) -> set[str]:
        return {str(fault) for fault in set(FAULTS) - set(fitting(FAULTS, casting))}

    child, replica = {"09 pool child killed"}, {"14 primary lost", "14 replica asleep"}
    assert left_out(Casting(("prefork", "inline"), "replica:1")) == set()
    assert left_out(Casting(("prefork", "inline"), "aof")) == replica
    assert left_out(Casting(("threads", "inline"), "none")) == child | replica


def test_a_fault_needs_something_that_can_be_cast() -> None:
    wanted = {fault.needs for fault in FAULTS if fault.needs}

    assert wanted <= {*POOLS, *DURABILITIES}
