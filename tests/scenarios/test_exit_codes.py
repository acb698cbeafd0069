"""A process that ends by a fault says so to its supervisor, however it was started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flybridge.bridge.errors import EXIT_REDIS, EXIT_SETTINGS, EXIT_TASK
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import FLYBRIDGE, Stage, message

CELERY = (str(Path(sys.executable).with_name("celery")), "-A", "flybridge.workers.app")


@pytest.mark.parametrize(
    "command",
    [
        (FLYBRIDGE, "worker", "--pool", "prefork", "--concurrency", "1"),
        (FLYBRIDGE, "worker", "--pool", "solo"),
        (FLYBRIDGE, "worker", "--pool", "asyncio"),
        (*CELERY, "worker", "-P", "threads", "-c", "2"),
    ],
)
async def test_a_worker_whose_intake_dies_ends_with_a_code_that_says_so(
    stage: Stage, command: tuple[str, ...]
) -> None:
    worker = stage.run("worker", *command, handlers="tests.scenarios.dying")
    await stage.leader()
    await worker.logged("intake.started")

    stage.push(message())

    assert await worker.ended() == EXIT_TASK
    assert worker.lines("intake.died")


@pytest.mark.parametrize(
    ("arguments", "settings", "code"),
    [
        ((), {"app_id": ""}, EXIT_SETTINGS),
        ((), {"handlers": ""}, EXIT_SETTINGS),
        (("-Q", "nope"), {}, EXIT_SETTINGS),
        ((), {"redis_url": f"redis://127.0.0.1:{free_port()}"}, EXIT_REDIS),
        (("--detach",), {"redis_url": f"redis://127.0.0.1:{free_port()}"}, EXIT_REDIS),
    ],
)
async def test_what_celery_cannot_start_is_a_sentence_and_a_code(
    stage: Stage, arguments: tuple[str, ...], settings: dict[str, str], code: int
) -> None:
    worker = stage.run("worker", *CELERY, "worker", "-c", "1", *arguments, **settings)

    assert await worker.ended() == code
    assert "Traceback" not in worker.log.read_text()
