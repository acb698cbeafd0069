"""Starts a Celery worker from settings and flags, as `flybridge worker` does."""

from __future__ import annotations

import os

from celery.utils.nodenames import default_nodename, host_format

from flybridge.bridge.config.dotnet_names import meaning
from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.errors import EXIT_TASK, OK, SettingsInvalid

__all__ = ["run_worker"]

ASYNCIO_POOL = "flybridge.workers.aio_pool:TaskPool"
ASYNCIO_SLOTS = 1000


def run_worker(
    settings: WorkerSettings,
    *,
    queues: str | None = None,
    pool: str = "prefork",
    concurrency: int | None = None,
    name: str | None = None,
) -> int:
    """Run one worker until it is told to stop.

    Args:
        settings: handed on through the environment, which pool children share.
        queues: names with commas; None for all.
        pool: prefork, threads, solo or asyncio.
        concurrency: slots; None for the pool's default (cores; 1000 for asyncio).
        name: Celery node name, e.g. `w1@%h`; None for one made of the pid.

    Returns:
        The exit code.

    Raises:
        SettingsInvalid: a queue that no event type and no handler has.
    """
    hand_on(settings)
    from flybridge.workers.app import app

    _check_queues(queues, [queue.name for queue in app.conf.task_queues])
    worker = app.Worker(
        pool_cls=ASYNCIO_POOL if pool == "asyncio" else pool,
        concurrency=concurrency or (ASYNCIO_SLOTS if pool == "asyncio" else None),
        queues=queues,
        # Unique on its host: `inspect` tells workers apart by it.
        hostname=host_format(default_nodename(name or f"worker-{os.getpid()}@%h")),
        loglevel="critical" if settings.log_level == "off" else settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    status = worker.exitcode or OK
    # Whoever ends it by a SystemExit may have given a text.
    return status if isinstance(status, int) else EXIT_TASK


def _check_queues(queues: str | None, known: list[str]) -> None:
    unknown = [queue for queue in (queues or "").split(",") if queue and queue not in known]
    if unknown:
        raise SettingsInvalid(
            [f"--queues: {', '.join(unknown)} does not exist; there are {', '.join(known)}"]
        )


def hand_on(settings: WorkerSettings) -> None:
    """Put the settings in the environment, and no second variable of the same meaning."""
    fields = WorkerSettings.model_fields
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        if meaning(name.removeprefix(PREFIX), fields)[0] in fields:
            del os.environ[name]
    os.environ.update(_environment(settings))


def _environment(settings: WorkerSettings) -> dict[str, str]:
    values = settings.model_dump(include=set(WorkerSettings.model_fields))
    return {
        PREFIX + name.upper(): ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in values.items()
    }
