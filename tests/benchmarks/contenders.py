"""Those who run: Flybridge's worker and its peers.

Each fills its queue, starts, and tells how far it is.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

import events
import peer_celery
import redis
from harness import HERE, OUR_PYTHON, PEER_PYTHON, Process

POOLS = {"prefork": 2, "threads": 8, "solo": 1, "asyncio": 1000}
"""Concurrency by pool; `inline`, the worker without Celery, has its own."""

_EVENT_TYPES = {
    "nothing": events.NOOP,
    "nothing_at_once": events.BATCH,
    "stamp": events.STAMP,
    "wait": events.WAIT,
    "hot": events.HOT,
    "own_key": events.OWN_KEY,
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a contender runs on.

    Attributes:
        url, client: of the private Redis.
        work: a key of `_EVENT_TYPES`.
        pool: a key of `POOLS`, or `inline`.
        notes: file for what handlers note.
        environ: more variables for the contender.
    """

    url: str
    client: redis.Redis
    work: str = "nothing"
    pool: str = "prefork"
    notes: str = ""
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return {"BENCH_NOTES": self.notes or "/dev/null", **self.environ}


class Flybridge:
    """Our worker: claim, settle and dedup on."""

    name = "flybridge"

    def fill(self, setup: Setup, count: int) -> None:
        events.fill(setup.client, count, _EVENT_TYPES[setup.work])

    def start(self, setup: Setup) -> Process:
        environ = setup.variables | {
            "FLYBRIDGE_APP_ID": events.APP_ID,
            "FLYBRIDGE_REDIS_URL": setup.url,
            "FLYBRIDGE_HANDLERS": "our_handlers",
            "FLYBRIDGE_LOG_LEVEL": "warning",
            "CELERY_CUSTOM_WORKER_POOL": "flybridge.workers.aio_pool:TaskPool",
        }
        return Process(_our_worker(setup.pool), environ)

    def done(self, setup: Setup, count: int) -> int:
        return events.acknowledged(setup.client, events.KEYS.stream(_EVENT_TYPES[setup.work]))


class CeleryList:
    """Celery on the Redis list transport: no dedup, at-least-once after the visibility timeout."""

    name = "celery list"

    def fill(self, setup: Setup, count: int) -> None:
        made = list(events.envelopes(range(count)))
        peer_celery.fill(setup.client, setup.url, setup.work, made)

    def start(self, setup: Setup) -> Process:
        command = celery("peer_celery", setup.pool, POOLS[setup.pool])
        return Process(command, setup.variables | {"BENCH_REDIS": setup.url})

    def done(self, setup: Setup, count: int) -> int:
        return count - peer_celery.waiting(setup.client)


class Taskiq:
    """taskiq on Redis Streams, one worker process: no dedup."""

    name = "taskiq"

    def fill(self, setup: Setup, count: int) -> None:
        command = [PEER_PYTHON, str(HERE / "peer_taskiq.py"), setup.url, setup.work]
        subprocess.run(command, check=True, timeout=30)
        [(_, fields)] = setup.client.xrange("taskiq")
        setup.client.delete("taskiq")
        before, after = fields[b"data"].split(b'"@event"')
        made = list(events.envelopes(range(count)))
        for first in range(0, count, 1000):
            with setup.client.pipeline(transaction=False) as pipeline:
                for name, envelope in made[first : first + 1000]:
                    data = before.replace(b"@id", name.encode()) + envelope + after
                    pipeline.xadd("taskiq", {"data": data})
                pipeline.execute()

    def start(self, setup: Setup) -> Process:
        return Process(
            [PEER_PYTHON, "-m", "taskiq", "worker", "peer_taskiq:broker", "--workers", "1",
             "--max-threadpool-threads", str(POOLS["threads"]), "--max-async-tasks", "1000",
             "--ack-type", "when_executed", "--log-level", "WARNING"],
            setup.variables | {"BENCH_REDIS": setup.url},
        )  # fmt: skip

    def done(self, setup: Setup, count: int) -> int:
        return events.acknowledged(setup.client, "taskiq")


def _our_worker(pool: str) -> list[str]:
    if pool == "inline":
        return [OUR_PYTHON, str(HERE / "our_inline.py")]
    return celery("flybridge.workers.app", "custom" if pool == "asyncio" else pool, POOLS[pool])


def celery(app: str, pool: str, concurrency: int) -> list[str]:
    """The command line of a Celery worker, ours or the peer's."""
    return [OUR_PYTHON, "-m", "celery", "-A", app, "worker", "-P", pool, "-c", str(concurrency),
            "-l", "WARNING", "--without-gossip", "--without-mingle"]  # fmt: skip
