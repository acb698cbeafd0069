"""Events per second of ordered types over two workers: all of one key, and each of its own."""

from __future__ import annotations

from contextlib import ExitStack

from contenders import Flybridge, Setup
from harness import Line, Options, private_redis, rate, table

REQUIRED_OF_A_HOT_KEY = 100.0

COUNTS = {"hot": 2_000, "own keys": 20_000, "unordered": 40_000}
"""Events; some seconds' worth each."""

WORKS = {"hot": "hot", "own keys": "own_key", "unordered": "nothing"}


def measure(options: Options) -> None:
    """Print a table a pool."""
    for pool in ("prefork", "threads"):
        rates: dict[str, list[float]] = {name: [] for name in COUNTS}
        for _ in range(options.runs):
            for name in COUNTS:
                rates[name].append(_run(pool, name, options))
        lines = [Line(name, values) for name, values in rates.items()]
        lines[0] = Line("hot", rates["hot"], required=REQUIRED_OF_A_HOT_KEY)
        table(f"ordering, two workers, {pool}", "events/s", lines)


def _run(pool: str, name: str, options: Options) -> float:
    count = COUNTS[name] // (4 if options.quick else 1)
    with private_redis() as (server, client), ExitStack() as stack:
        setup = Setup(server.url, client, WORKS[name], pool)
        contender = Flybridge()
        contender.fill(setup, count)
        workers = [stack.enter_context(contender.start(setup)) for _ in range(2)]
        return rate(lambda: contender.done(setup, count), count, workers[0])
