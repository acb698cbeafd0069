"""How long after it was sent an event's handler starts, at 100 events a second."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import events
from celery import Celery
from contenders import CeleryList, Flybridge, Setup
from harness import Line, Options, Process, private_redis, reach, table

RATE = 100.0
SECONDS = 10.0
WARM = 100
"""Events before those that count: processes fork, caches fill."""

REQUIRED = {"p50": 2.0, "p99": 10.0}
"""Milliseconds."""


def measure(options: Options) -> None:
    """Print p50 and p99 of us and of the peer."""
    seconds = SECONDS / 2 if options.quick else SECONDS
    for pool in ("prefork", "threads", "asyncio"):
        required = REQUIRED if pool == "prefork" else {}
        rivals = {"flybridge": _ours, **({} if pool == "asyncio" else {"celery list": _peer})}
        figures = {
            name: [run(pool, seconds) for _ in range(options.runs)] for name, run in rivals.items()
        }
        lines = [
            Line(f"{name} {label}", [each[index] for each in values],
                 required=required.get(label) if name == "flybridge" else None, most=True)
            for name, values in figures.items()
            for index, label in enumerate(("p50", "p99"))
        ]  # fmt: skip
        table(f"latency at {RATE:g} events/s, {pool}", "ms", lines)


def _ours(pool: str, seconds: float) -> tuple[float, float]:
    with private_redis() as (server, client), tempfile.NamedTemporaryFile() as notes:
        setup = Setup(server.url, client, "stamp", pool, notes.name)
        client.sadd(events.KEYS.types, events.STAMP)

        def send(number: int) -> None:
            events.add(client, events.entry(*events.stamped(number), events.STAMP))

        with Flybridge().start(setup) as process:
            return _measure(send, seconds, Path(notes.name), process)


def _peer(pool: str, seconds: float) -> tuple[float, float]:
    with private_redis() as (server, client), tempfile.NamedTemporaryFile() as notes:
        setup = Setup(server.url, client, "stamp", pool, notes.name)
        with Celery("sender", broker=server.url) as sender:
            sender.conf.task_ignore_result = True

            def send(number: int) -> None:
                name, envelope = events.stamped(number)
                # Decoding is the caller's affair; the time runs from just before the sending.
                event = json.loads(envelope)
                event["event"]["sent"] = time.time()
                sender.send_task("peer_celery.stamp", args=[event], task_id=name)

            with CeleryList().start(setup) as process:
                return _measure(send, seconds, Path(notes.name), process)


def _measure(
    send: Callable[[int], None], seconds: float, notes: Path, process: Process
) -> tuple[float, float]:
    """Milliseconds, p50 and p99."""

    def noted() -> int:
        return notes.read_bytes().count(b"\n")

    for number in range(WARM):
        send(number)
    reach(noted, WARM, process)
    total = WARM + int(RATE * seconds)
    started = time.monotonic()
    for number in range(WARM, total):
        time.sleep(max(0.0, started + (number - WARM) / RATE - time.monotonic()))
        send(number)
    reach(noted, total, process, every=0.1)
    values = [float(line) * 1000 for line in notes.read_text().splitlines()[WARM:]]
    return statistics.median(values), statistics.quantiles(values, n=100)[98]
