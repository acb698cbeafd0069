"""The asyncio pool: every request ends with one callback, whatever ended it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flybridge.workers.aio_pool import TaskPool


class Heard:
    """The callbacks of one request."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._ended = threading.Event()

    def options(self) -> dict[str, Any]:
        return {
            "accept_callback": lambda pid, when: self.calls.append(("accepted", None)),
            "callback": lambda value: self._end("done", value),
            "error_callback": lambda info: self._end("failed", info.exception),
            "timeout_callback": lambda soft, timeout: self._end("timeout", (soft, timeout)),
        }

    def ended(self) -> tuple[str, Any]:
        assert self._ended.wait(5)
        return self.calls[-1]

    def _end(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        self._ended.set()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    pool = TaskPool(100, app=None)
    pool.start()
    yield pool
    if pool._thread.is_alive():
        pool.terminate()


async def forever(begun: threading.Event) -> None:
    begun.set()
    await asyncio.Event().wait()


def test_a_coroutine_is_accepted_and_its_value_handed_on(pool: TaskPool, heard: Heard) -> None:
    async def double(number: int) -> int:
        return 2 * number

    pool.apply_async(double, args=(21,), **heard.options())
    name, (failed, value, runtime) = heard.ended()
    assert heard.calls[0] == ("accepted", None)
    assert (name, failed, value) == ("done", 0, 42)
    assert 0 <= runtime < 1


def test_as_many_coroutines_as_there_are_wait_side_by_side(pool: TaskPool) -> None:
    everyone = asyncio.Barrier(500)
    requests = [Heard() for _ in range(500)]
    for each in requests:
        pool.apply_async(everyone.wait, **each.options())
    assert {each.ended()[0] for each in requests} == {"done"}


def test_a_failure_is_handed_on_with_its_cause(pool: TaskPool, heard: Heard) -> None:
    async def fail() -> None:
        raise ValueError("no")

    pool.apply_async(fail, **heard.options())
    name, error = heard.ended()
    assert name == "failed"
    assert type(error.exc) is ValueError
    assert len(heard.calls) == 2


def test_an_exit_of_a_task_that_a_coroutine_started_ends_that_coroutine_only(
    pool: TaskPool, heard: Heard
) -> None:
    async def leave() -> None:
        raise SystemExit(1)

    async def start() -> None:
        await asyncio.gather(leave())

    async def double(number: int) -> int:
        return 2 * number

    pool.apply_async(start, **heard.options())
    name, error = heard.ended()
    assert (name, type(error.exc)) == ("failed", SystemExit)
    another = Heard()
    pool.apply_async(double, args=(21,), **another.options())
    assert another.ended()[1][1] == 42


def test_a_timeout_of_the_coroutines_own_is_a_failure(pool: TaskPool, heard: Heard) -> None:
    async def own() -> None:
        raise TimeoutError("the other side")

    pool.apply_async(own, timeout=5, **heard.options())
    assert heard.ended()[0] == "failed"


def test_a_revoked_request_is_cancelled(pool: TaskPool, heard: Heard) -> None:
    begun = threading.Event()
    running = pool.apply_async(forever, args=(begun,), **heard.options())
    assert begun.wait(5)
    running.terminate()
    name, error = heard.ended()
    assert (name, type(error.exc)) == ("failed", asyncio.CancelledError)


def test_a_request_that_is_revoked_before_its_first_step_ends_too(
    pool: TaskPool, heard: Heard
) -> None:
    stopped, go_on = threading.Event(), threading.Event()

    async def stop_the_loop() -> None:
        stopped.set()
        go_on.wait(5)

    pool.apply_async(stop_the_loop)
    assert stopped.wait(5)
    running = pool.apply_async(forever, args=(threading.Event(),), **heard.options())
    running.terminate()
    go_on.set()
    name, error = heard.ended()
    assert (name, type(error.exc)) == ("failed", asyncio.CancelledError)


def test_a_request_whose_acceptance_fails_ends_and_holds_up_no_other(
    pool: TaskPool, heard: Heard
) -> None:
    async def double(number: int) -> int:
        return 2 * number

    def refuse(pid: int, when: float) -> None:
        raise ConnectionError("of the broker")

    stopped, go_on = threading.Event(), threading.Event()

    async def stop_the_loop() -> None:
        stopped.set()
        go_on.wait(5)

    pool.apply_async(stop_the_loop)
    assert stopped.wait(5)
    pool.apply_async(double, args=(1,), **{**heard.options(), "accept_callback": refuse})
    another = Heard()
    pool.apply_async(double, args=(21,), **another.options())
    go_on.set()
    name, error = heard.ended()
    assert (name, type(error.exc)) == ("failed", ConnectionError)
    assert another.ended()[1][1] == 42


def test_a_plain_task_runs_in_a_thread_and_not_on_the_loop(pool: TaskPool, heard: Heard) -> None:
    pool.apply_async(lambda: threading.current_thread().name, **heard.options())
    name, value = heard.ended()
    assert name == "done"
    assert value.startswith("flybridge-task")


def test_a_warm_stop_lets_everything_end(pool: TaskPool, heard: Heard) -> None:
    begun = threading.Event()

    async def work() -> str:
        begun.set()
        await asyncio.sleep(0.1)
        return "ended"

    pool.apply_async(work, **heard.options())
    assert begun.wait(5)
    pool.stop()
    assert heard.calls[-1][1][1] == "ended"
    assert not pool._thread.is_alive()


def test_a_cold_stop_cancels_and_tells(pool: TaskPool, heard: Heard) -> None:
    begun = threading.Event()
    pool.apply_async(forever, args=(begun,), **heard.options())
    assert begun.wait(5)
    started = time.monotonic()
    pool.terminate()
    assert heard.calls[-1][0] == "failed"
    assert time.monotonic() - started < 2


def test_its_size_and_what_runs_are_told_to_operators(pool: TaskPool) -> None:
    assert pool.num_processes == 100
    assert pool.info["running"] == 0
