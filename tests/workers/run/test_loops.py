from __future__ import annotations

import asyncio
import os
import threading

import pytest

from flybridge.workers.run.loops import close_loop, drive, threads_of


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_thread_keeps_its_loop_until_it_closes_it() -> None:
    first = drive(running_loop())
    assert drive(running_loop()) is first
    close_loop()
    assert first.is_closed()
    close_loop()
    assert drive(running_loop()) is not first
    close_loop()


def test_every_thread_has_a_loop_of_its_own() -> None:
    found: list[asyncio.AbstractEventLoop] = []

    def work() -> None:
        found.append(drive(running_loop()))
        close_loop()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] is not drive(running_loop())
    close_loop()


def test_a_forked_process_leaves_its_parents_loop_and_threads_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parents_loop = drive(running_loop())
    parents_threads = threads_of(os.getpid())
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 4_000_001)
        assert drive(running_loop()) is not parents_loop
        assert threads_of(os.getpid()) is not parents_threads
        close_loop()
    assert not parents_loop.is_closed()
    assert drive(running_loop()) is parents_loop
    close_loop()


def test_nothing_runs_on_after_an_interruption() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def interrupted() -> None:
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        assert not task.done()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(interrupted())
    assert ended == ["endless"]
    close_loop()
