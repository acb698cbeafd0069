"""Runs one seed of the chaos suite: `make chaos SEED=7 EVENTS=100000 FAULTS=1-9,30 POOLS=inline`.

The exit code is 0 when every promise was kept, 1 when one was broken, 2 when the suite itself
broke down. On failure the directory with all logs, deeds and Redis' files is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flybridge.bridge.local.valkey import find_binary
from tests.chaos.casting import DURABILITIES, POOLS, TOPOLOGIES, Casting, casting_of
from tests.chaos.checker import Violation, violations
from tests.chaos.fault import Fault
from tests.chaos.history import History
from tests.chaos.nemesis import Nemesis, chosen, fitting
from tests.chaos.opening import playing
from tests.chaos.play import Play
from tests.chaos.report import report
from tests.project import ROOT

SHORTEST = 60.0
"""Seconds over which the events of a run are spread, at least: each fault needs its time."""

FASTEST = 600.0
"""Events a second; the flow control may make it less."""

MANY = 20_000
"""Events from which on faults leave the system more time to work."""

CALM = 60.0
"""Seconds after the last fault in which everything has to come to its end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one run."""

    play: Play
    history: History
    violations: Sequence[Violation]
    broken: Sequence[str]
    """What went wrong in the suite itself."""
    seconds: float


async def run(
    directory: Path,
    seed: int,
    events: int,
    faults: Sequence[Fault],
    casting: Casting,
    *,
    spread: float = SHORTEST,
    calm: float = CALM,
    product: Path = ROOT,
    binary: str | None = None,
) -> Verdict:
    """Play these faults while so many events flow, and judge.

    Args:
        faults: none that needs what the casting has not.
    """
    began = time.monotonic()
    traced = any(fault.number == 27 for fault in faults)
    async with playing(
        directory, seed, product=product, casting=casting, binary=binary, traced=traced
    ) as play:
        nemesis = Nemesis(play, faults, seed, quiet=(0.1, 0.6) if events < MANY else (1.0, 4.0))
        at_work = asyncio.create_task(nemesis.run(), name="nemesis")
        rate = min(FASTEST, events / spread)
        await play.generator.run(events, rate)
        nemesis.enough.set()
        trickle = asyncio.create_task(play.generator.run(sys.maxsize, min(rate, 50.0)))
        await at_work
        trickle.cancel()
        settled = await play.calm(calm)
        history = await play.history()
    found = violations(history)
    broken = [*nemesis.failed, *([] if settled or found else ["it never came to rest"])]
    return Verdict(play, history, found, broken, time.monotonic() - began)


def main() -> int:
    """The command; see `--help`."""
    options = _options()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**6)
    casting = casting_of(seed, options.pools, options.durability, options.topology)
    faults, binary = fitting(chosen(options.faults), casting), options.redis or find_binary()
    print(f"seed {seed}: {casting}", flush=True)
    print(f"{options.events} events, {len(faults)} faults, {binary}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix=f"flybridge-chaos-{seed}-"))
    verdict = asyncio.run(
        run(
            directory, seed, options.events, faults, casting,
            product=options.product, binary=binary,
        )
    )  # fmt: skip
    return _tell(verdict, directory, seed)


def _tell(verdict: Verdict, directory: Path, seed: int) -> int:
    for line in report(verdict.play, verdict.history, verdict.violations):
        print(line)
    for sentence in verdict.broken:
        print(f"the suite broke down: {sentence}")
    failed = bool(verdict.violations or verdict.broken)
    print(f"seed {seed}: {'FAILED' if failed else 'passed'} in {verdict.seconds:.0f} s")
    if failed:
        (directory / "violations.txt").write_text("\n".join(map(str, verdict.violations)))
        _write(verdict.history, directory / "disturbances.txt")
        print(f"the evidence is in {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if verdict.violations else 2 if verdict.broken else 0


def _write(history: History, path: Path) -> None:
    """The times of everything that was done to the system, to read beside its logs."""
    lines = [(each.begin, str(each)) for each in history.disturbances]
    lines += [(each.began, str(each)) for each in history.recoveries]
    lines += [(each.time, str(each)) for each in history.exits]
    path.write_text("\n".join(line for _, line in sorted(lines)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="a random one by default; it is printed")
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--faults", default="", help="numbers of the table, as 1,7-9; default: all")
    parser.add_argument(
        "--pools", type=_words, help=f"of {', '.join(POOLS)}, with commas; default: by the seed"
    )
    parser.add_argument("--durability", choices=DURABILITIES, help="default: by the seed")
    parser.add_argument("--topology", choices=TOPOLOGIES, help="default: by the seed")
    parser.add_argument("--redis", help="the server to run; default: the embedded one")
    parser.add_argument("--product", type=Path, default=ROOT, help="the tree to test")
    return parser.parse_args()


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.replace(" ", "").split(",")))


if __name__ == "__main__":
    sys.exit(main())
