"""The chaos suite in short behind Sentinels and in a Cluster: a few events through their faults.

`make chaos TOPOLOGY=cluster` runs all that there are.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.casting import Casting
from tests.chaos.nemesis import chosen, fitting
from tests.chaos.report import report
from tests.chaos.run import run

EVENTS = 200
SPREAD = 8.0
"""Seconds over which the events come."""

POOLS = ("threads", "inline")


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("topology", "names"),
    [
        ("sentinel", {"14 primary killed", "31 Sentinels killed", "15 server hidden"}),
        ("cluster", {"14 primary killed", "32 slot moved", "15 server hidden"}),
    ],
)
async def test_who_the_primary_is_changes_and_the_promises_hold(
    topology: str, names: set[str], tmp_path: Path
) -> None:
    casting = Casting(POOLS, "replica:1", topology)
    faults = [fault for fault in fitting(chosen(""), casting) if str(fault) in names]

    verdict = await run(tmp_path, 7, EVENTS, faults, casting, spread=SPREAD)

    told = "\n".join(report(verdict.play, verdict.history, verdict.violations))
    assert not verdict.violations, told
    assert not verdict.broken, verdict.broken
    assert set(verdict.play.counts) >= names
    # Nobody went past its proxy: each primary was reached through it.
    servers = verdict.play.servers
    assert all(servers.primary.port in proxy.reached for proxy in verdict.play.cast.redis.values())
