"""Events per second to a no-op handler that takes batches, beside one that takes single events.

Single events go to the pool in bundles, as they always do when handlers are quick; and, for what a
request costs, one in each.
"""

from __future__ import annotations

from contenders import Flybridge, Setup
from harness import Line, Options, private_redis, rate, table

REQUIRED = 3.0

COUNT = 60_000
"""Events; some seconds' worth."""

ALONE = {"BENCH_ONE_A_REQUEST": "1"}


def measure(options: Options) -> None:
    """Print a table a pool; all take turns, so that a busy minute hits each."""
    for pool in ("prefork", "threads", "asyncio"):
        batches: list[float] = []
        bundled: list[float] = []
        alone: list[float] = []
        for _ in range(options.runs):
            batches.append(_run("nothing_at_once", pool, options, {}))
            bundled.append(_run("nothing", pool, options, {}))
            alone.append(_run("nothing", pool, options, ALONE))
        lines = [
            Line("batches of up to 500, over one event a request", batches, alone, REQUIRED),
            Line("batches of up to 500, over bundled events", batches, bundled),
            Line("single events, bundled", bundled),
            Line("single events, one a request", alone),
        ]
        table(f"batches, {pool}", "events/s", lines)


def _run(work: str, pool: str, options: Options, environ: dict[str, str]) -> float:
    count = COUNT // (4 if options.quick else 1)
    with private_redis() as (server, client):
        setup, contender = Setup(server.url, client, work, pool, environ=environ), Flybridge()
        contender.fill(setup, count)
        with contender.start(setup) as process:
            return rate(lambda: contender.done(setup, count), count, process)
