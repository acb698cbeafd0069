"""Events per second from a filled queue to a no-op handler; acknowledged is done."""

from __future__ import annotations

from collections.abc import Iterator

from contenders import CeleryList, Flybridge, Setup, Taskiq
from harness import Line, Options, private_redis, rate, table

REQUIRED = {"prefork": 4.0, "threads": 6.0}
OVER_TASKIQ = 1.7

COUNTS = {"flybridge": 40_000, "celery list": 8_000, "taskiq": 20_000}
"""Events; some seconds' worth each, for the rates differ."""


def measure(options: Options) -> None:
    """Print a table a pool; contenders take turns, so that a busy minute hits all."""
    for pool in ("prefork", "threads", "solo", "asyncio", "inline"):
        rivals = list(_rivals(pool))
        rates: dict[str, list[float]] = {name: [] for name, _, _ in rivals}
        for _ in range(options.runs):
            for name, contender, work in rivals:
                rates[name].append(_run(contender, pool, work, options))
        table(f"intake, {pool}", "events/s", list(_lines(pool, rates)))


def _rivals(pool: str) -> Iterator[tuple[str, Flybridge | CeleryList | Taskiq, str]]:
    yield "flybridge", Flybridge(), "nothing"
    if pool not in ("asyncio", "inline"):
        yield "celery list", CeleryList(), "nothing"
    if pool == "threads":
        yield "taskiq, def in 8 threads", Taskiq(), "nothing"
    if pool in ("threads", "asyncio", "inline"):
        yield "taskiq, async def", Taskiq(), "nothing_async"


def _run(
    contender: Flybridge | CeleryList | Taskiq, pool: str, work: str, options: Options
) -> float:
    count = COUNTS[contender.name] // (4 if options.quick else 1)
    with private_redis() as (server, client):
        setup = Setup(server.url, client, work, pool)
        contender.fill(setup, count)
        with contender.start(setup) as process:
            return rate(lambda: contender.done(setup, count), count, process)


def _lines(pool: str, rates: dict[str, list[float]]) -> Iterator[Line]:
    ours = rates.pop("flybridge")
    for name, values in rates.items():
        over_taskiq = OVER_TASKIQ if pool == "threads" else None
        required = over_taskiq if name.startswith("taskiq") else REQUIRED.get(pool)
        yield Line(f"flybridge over {name}", ours, values, required)
    for name, values in rates.items():
        yield Line(name, values)
