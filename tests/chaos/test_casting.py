"""Which cast a seed has. Pure: no process is started."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.casting import DURABILITIES, POOLS, TOPOLOGIES, Casting, casting_of
from tests.chaos.faults import topologies
from tests.chaos.nemesis import FAULTS, fitting

SEEDS = range(400)


def test_a_seed_always_has_the_same_casting() -> None:
    assert [casting_of(seed) for seed in SEEDS] == [casting_of(seed) for seed in SEEDS]
    # Written down, for another Python must not have another play for it.
    assert casting_of(403) == Casting(("prefork", "inline", "service"), "aof", "sentinel")


def test_seeds_have_every_pool_beside_every_other_every_durability_and_every_redis() -> None:
    castings = [casting_of(seed) for seed in SEEDS]

    assert {len(casting.pools) for casting in castings} == {2, 3}
    pairs = Counter((one, two) for each in castings for one in each.pools for two in each.pools)
    assert set(pairs) == {(one, two) for one in POOLS for two in POOLS}
    found = {(each.durability, pool) for each in castings for pool in each.pools}
    assert found == {(durability, pool) for durability in DURABILITIES for pool in POOLS}
    drawn = {(each.topology, each.durability) for each in castings}
    assert drawn == {(topology, each) for topology in TOPOLOGIES for each in DURABILITIES}


def test_what_is_given_takes_the_place_of_what_the_seed_has() -> None:
    drawn = casting_of(1)

    pools = ("asyncio", "inline")
    assert casting_of(1, pools) == Casting(pools, drawn.durability, drawn.topology)
    assert casting_of(1, None, "aof") == Casting(drawn.pools, "aof", drawn.topology)
    assert casting_of(1, topology="cluster") == replace(drawn, topology="cluster")
    with pytest.raises(ValueError, match="no pool is called gevent; there are: prefork, threads"):
        casting_of(1, ("gevent",))
    with pytest.raises(ValueError, match="given twice"):
        casting_of(1, ("inline", "inline"))
    with pytest.raises(ValueError, match="no durability is called disk; there are: none, aof"):
        casting_of(1, None, "disk")
    with pytest.raises(ValueError, match="no topology is called ring; there are: single, sentinel"):
        casting_of(1, topology="ring")


def test_the_header_of_a_run_tells_the_casting() -> None:
    told = str(Casting(("asyncio", "inline"), "replica:1", "cluster"))

    assert told == "pools asyncio, inline; durability replica:1; topology cluster"


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
    elsewhere = {str(fault) for fault in topologies.FAULTS}
    pools = ("prefork", "inline")
    assert left_out(Casting(pools, "replica:1")) == elsewhere
    assert left_out(Casting(pools, "aof")) == replica | elsewhere
    assert left_out(Casting(("threads", "inline"), "none")) == child | replica | elsewhere
    single = {"14 Redis failed over", "14 primary lost"}
    of_cluster = {"14 replica takes over", "32 slot moved", "32 other shard lost"}
    of_sentinels = {"14 Sentinel promotes", "31 Sentinels killed"}
    assert left_out(Casting(pools, "replica:1", "sentinel")) == single | of_cluster
    assert left_out(Casting(pools, "replica:1", "cluster")) == single | of_sentinels


def test_a_replica_is_promoted_only_where_acks_wait_for_it() -> None:
    """Elsewhere it may lose what was acked, as the README says."""
    killed = {"14 primary killed", "14 primary asleep", "14 Sentinel promotes"}
    for topology in ("sentinel", "cluster"):
        for durability in ("none", "aof"):
            played = {str(each) for each in fitting(FAULTS, Casting((), durability, topology))}
            assert not killed & played


def test_a_fault_needs_something_that_can_be_cast() -> None:
    castings = [
        Casting(POOLS, durability, topology)
        for durability in DURABILITIES
        for topology in TOPOLOGIES
    ]

    played = {fault for casting in castings for fault in fitting(FAULTS, casting)}
    assert played == set(FAULTS)
