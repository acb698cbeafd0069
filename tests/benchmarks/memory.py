"""The bridge's resident memory while a million events pass."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

import events
import push
import redis
from harness import Line, Options, Process, private_redis, table

COUNT = 1_000_000
QUICK_COUNT = 100_000
WARM = 0.1
"""Share of the events after which caches and buffers have their size."""

REQUIRED = 1.0
"""MB of growth at most: what sampling and a last buffer make, not a leak of bytes an event."""

KEPT = 5_000
"""Events whose marks stay in Redis; the others are deleted here, so that Redis stays small."""


def measure(options: Options) -> None:
    """Print the growth from the first tenth after the warm-up to the last tenth."""
    count = QUICK_COUNT if options.quick else COUNT
    samples = _run(count)
    tenth = len(samples) // 10
    warm = samples[int(len(samples) * WARM) :]
    before, after = statistics.median(warm[:tenth]), statistics.median(warm[-tenth:])
    table(f"bridge memory while {count:,} events pass", "MB", [
        Line("after warm-up", [before]),
        Line("at the end", [after]),
        Line("highest", [max(warm)]),
        Line("growth", [after - before], required=REQUIRED, most=True),
    ])  # fmt: skip


def _run(count: int) -> list[float]:
    with ExitStack() as stack:
        server, client = stack.enter_context(private_redis())
        sender = stack.enter_context(push.sender(count))
        bridge = stack.enter_context(push.bridge(server.url, push.port(sender)))
        return _sample(sender, bridge, client, count)


def _sample(sender: Process, bridge: Process, client: redis.Redis, count: int) -> list[float]:
    samples: list[float] = []
    deleted = 0
    for found in push.progress(sender, count):
        samples.append(bridge.memory() / 1e6)
        acked = int(found["acked"])
        _trim(client, range(deleted, max(deleted, acked - KEPT)))
        deleted = max(deleted, acked - KEPT)
    return samples


def _trim(client: redis.Redis, numbers: range) -> None:
    client.xtrim(events.KEYS.stream(events.NOOP), maxlen=KEPT)
    for first in range(0, len(numbers), 1000):
        marks = [events.KEYS.published(events.event_id(n)) for n in numbers[first : first + 1000]]
        client.unlink(*marks)
