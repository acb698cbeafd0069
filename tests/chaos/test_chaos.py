"""The chaos suite in short: one seed, every fault that heals in a few seconds, in `make test`.

`make chaos` runs all of them, with a seed of its own and the casting that it has.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.casting import Casting
from tests.chaos.nemesis import FAULTS, chosen, fitting
from tests.chaos.report import report
from tests.chaos.run import run

SEED = 7
EVENTS = 1500
SPREAD = 25.0
"""Seconds over which the events come."""

SHORT = (1, 2, 3, 8, 9, 10, 11, 14, 17, 18, 19, 20, 21, 22, 26, 30)
"""Rows of the table."""


@pytest.mark.timeout(180)
async def test_through_every_quick_fault_the_promises_hold(tmp_path: Path) -> None:
    casting = Casting(("prefork", "threads"), "none")
    quick = [fault for fault in FAULTS if fault.number in SHORT and not fault.slow]
    faults = fitting(quick, casting)

    verdict = await run(tmp_path, SEED, EVENTS, faults, casting, spread=SPREAD)

    told = "\n".join(report(verdict.play, verdict.history, verdict.violations))
    assert not verdict.violations, told
    assert not verdict.broken, verdict.broken
    assert {fault.number for fault in faults} == set(SHORT)
    assert set(verdict.play.counts) >= {str(fault) for fault in faults}


def test_every_row_of_the_fault_table_has_a_fault() -> None:
    assert {fault.number for fault in FAULTS} == set(range(1, 33))


def test_faults_are_chosen_by_number() -> None:
    assert chosen("") == list(FAULTS)
    assert {fault.number for fault in chosen("1, 7-9,30")} == {1, 7, 8, 9, 30}
    with pytest.raises(ValueError, match="no fault has the number 33; there are: 01 leader killed"):
        chosen("33")
