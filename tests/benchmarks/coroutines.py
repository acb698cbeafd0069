"""1,000 events whose async handler awaits 100 ms, one process: the time until all are settled."""

from __future__ import annotations

import tempfile
from pathlib import Path

from contenders import CeleryList, Flybridge, Setup, Taskiq
from harness import Line, Options, private_redis, reach, table

EVENTS = 1_000
AWAITED = 0.1
PEER_SHARE = 10
"""Prefork would take 50 s, so it gets a tenth of the events, and its time counts tenfold."""

REQUIRED = 1.0
"""Seconds."""


def measure(options: Options) -> None:
    """Print the seconds from the first handler's start to the last acknowledgement."""
    ours = [_run(Flybridge(), "asyncio", EVENTS) for _ in range(options.runs)]
    taskiq = [_run(Taskiq(), "asyncio", EVENTS) for _ in range(options.runs)]
    share = EVENTS // PEER_SHARE
    prefork = [_run(CeleryList(), "prefork", share) * PEER_SHARE for _ in range(options.runs)]
    lines = [
        Line("flybridge, asyncio pool", ours, required=REQUIRED, most=True),
        Line("taskiq, 1,000 tasks at once", taskiq),
        Line(f"celery list, prefork x2 ({share} events, time x{PEER_SHARE})", prefork),
    ]
    table(f"{EVENTS:,} events of {AWAITED * 1000:g} ms each", "seconds", lines)


def _run(contender: Flybridge | CeleryList | Taskiq, pool: str, count: int) -> float:
    with private_redis() as (server, client), tempfile.NamedTemporaryFile() as notes:
        setup = Setup(server.url, client, "wait", pool, notes.name)
        contender.fill(setup, count)
        with contender.start(setup) as process:
            ended, _ = reach(lambda: contender.done(setup, count), count, process, every=0.002)
        started = min(map(float, Path(notes.name).read_text().split()))
    return ended - started
