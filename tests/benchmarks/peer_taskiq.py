"""The peer: taskiq on Redis Streams, tuned as well as its options allow. Runs in `.venv-interop`.

`python peer_taskiq.py URL TASK` sends one event, of which the benchmark makes its copies.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from notes import note, note_first
from taskiq_redis import RedisStreamBroker

QUEUE = "taskiq"

broker = RedisStreamBroker(
    os.environ.get("BENCH_REDIS") or sys.argv[1],
    queue_name=QUEUE,
    consumer_id="0",
    xread_count=int(os.environ.get("BENCH_READ", "100")),
)


@broker.task(task_name="nothing")
def nothing(event: dict[str, Any]) -> None:
    """The same no-op; a `def` runs in the thread pool."""


@broker.task(task_name="nothing_async")
async def nothing_async(event: dict[str, Any]) -> None:
    """The same no-op on the event loop."""


@broker.task(task_name="stamp")
async def stamp(event: dict[str, Any]) -> None:
    """Note how old the event is."""
    note(time.time() - event["event"]["sent"])


@broker.task(task_name="wait")
async def wait(event: dict[str, Any]) -> None:
    """The same wait."""
    note_first()
    await asyncio.sleep(0.1)


async def _send(task: str) -> None:
    await broker.startup()
    await broker.find_task(task).kicker().with_task_id("@id").kiq("@event")
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(_send(sys.argv[2]))
