"""Only FLYBRIDGE_* configures a worker, and what stands on the command line of `celery`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.scenarios.stage import FLYBRIDGE, Stage, message
from tests.waiting import eventually

CELERY = (str(Path(sys.executable).with_name("celery")), "-A", "flybridge.workers.app")

FOREIGN: Mapping[str, str] = {
    "APP": "production",
    "BROKER_URL": "redis://127.0.0.1:1/0",
    "CELERY_BROKER_URL": "amqp://guest@127.0.0.1:1//",
    "CELERY_BROKER_READ_URL": "redis://127.0.0.1:1/0",
    "CELERY_BROKER_WRITE_URL": "redis://127.0.0.1:1/0",
    "CELERY_CONFIG_MODULE": "no.such.settings",
    "CELERY_CUSTOM_WORKER_POOL": "no.such:Pool",
    "CELERY_LOADER": "no.such:Loader",
    "CELERY_RESULT_BACKEND": "django-db",
    "CELERY_WORKER_POOL": "gevent",
    "CELERY_WORKER_QUEUES": "elsewhere",
    "CONFIG_MODULE": "no.such.settings",
    "FORKED_BY_MULTIPROCESSING": "1",
    "LOADER": "no.such:Loader",
    "RESULT_BACKEND": "db+sqlite:///nowhere.db",
}
"""Of some other Celery program, whose container or shell this is, too."""


PREIMPORTED = (
    "import celery.bin.celery, celery.concurrency\n"
    "from flybridge.bridge.cli.main import main\n"
    "main()"
)


@pytest.mark.parametrize(
    "command",
    [
        (FLYBRIDGE, "worker", "--pool", "prefork", "--concurrency", "1"),
        # As by `opentelemetry-instrument`, which imports Celery first.
        (sys.executable, "-c", PREIMPORTED, "worker", "--pool", "asyncio"),
        (*CELERY, "worker", "-c", "2"),
    ],
)
async def test_the_variables_of_another_celery_program_change_nothing(
    stage: Stage, command: tuple[str, ...]
) -> None:
    (stage.directory / "celeryconfig.py").write_text("task_always_eager = True\n1 / 0\n")
    worker = stage.run("worker", *command, **FOREIGN)
    await stage.leader()
    await worker.logged("intake.started")

    event_ids = stage.push(*(message("fail 1") for _ in range(6)))

    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert {deed["attempt"] for deed in stage.deeds("finished")} == {2}
    assert stage.dead_letters() == []


async def test_what_stands_on_celerys_command_line_counts(stage: Stage) -> None:
    file = stage.directory / "lines.log"
    with stage.redis() as redis:
        broker = stage.redis_server.url.replace("/0", "/1")
        worker = stage.run(
            "worker", *CELERY, "-b", broker, "--result-backend", "redis://127.0.0.1:1/0",
            "worker", "-c", "1", "-n", "mine@h", "-l", "debug", "-E", "--logfile", str(file),
        )  # fmt: skip
        await stage.leader()
        event_ids = stage.push(message())
        await stage.settled(event_ids)
        assert stage.counted() == dict.fromkeys(event_ids, 1)
        assert not redis.keys("*:celery:*")

    def settled() -> bool:
        return "attempt.settled" in file.read_text()

    await eventually(settled)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert "intake.started" in {line["event"] for line in lines}
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    assert not worker.log.read_text(), "all lines are in the file"
