"""Background tasks: one that fails is told of, all others may end as they like."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from flybridge.bridge.errors import EXIT_TASK, TaskFailed
from flybridge.bridge.process.task_watch import TaskWatch


async def test_one_that_returns_or_is_cancelled_has_not_failed() -> None:
    tasks = TaskWatch()
    returning = tasks.start(asyncio.sleep(0), "returning")
    cancelled = tasks.start(asyncio.sleep(60), "cancelled")
    cancelled.cancel()
    await asyncio.wait({returning, cancelled})
    assert not tasks.failed.is_set()
    tasks.check()


async def test_the_first_that_fails_is_logged_and_raised_and_so_is_its_cause() -> None:
    async def fail(error: Exception) -> None:
        raise error

    tasks, first = TaskWatch(), KeyError("x")
    with capture_logs() as logs:
        tasks.start(fail(first), "trimmer")
        await tasks.failed.wait()
        await asyncio.wait({tasks.start(fail(ValueError()), "publisher")})
    assert [line["task"] for line in logs] == ["trimmer", "publisher"]
    with pytest.raises(TaskFailed, match=r"The task trimmer ended by KeyError") as raised:
        tasks.check()
    assert (raised.value.__cause__, raised.value.exit_code) == (first, EXIT_TASK)
