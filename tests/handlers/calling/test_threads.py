"""Threads for handlers: every call starts at once, and none keeps the process from ending."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from flybridge.handlers.calling.threads import Ended, HandlerThreads, in_thread


@pytest.fixture
def threads() -> Iterator[HandlerThreads]:
    threads = HandlerThreads()
    yield threads
    threads.shutdown()


class Told:
    """The results of calls, in the order in which they ended."""

    def __init__(self, threads: HandlerThreads) -> None:
        self._threads = threads
        self._ends: SimpleQueue[Ended] = SimpleQueue()

    def start(self, call: Callable[[], Any]) -> None:
        self._threads.start(call, self._ends.put)

    def next(self) -> Any:
        value, error = self._ends.get(timeout=10)
        assert error is None
        return value


@pytest.fixture
def told(threads: HandlerThreads) -> Told:
    return Told(threads)


@pytest.mark.parametrize("kind", [ValueError, StopIteration, SystemExit, asyncio.CancelledError])
async def test_a_value_or_an_exception_is_handed_on(threads, kind):
    def fail() -> None:
        raise kind("no")

    assert await in_thread(threads, divmod, 7, 2) == (3, 1)
    # A coroutine cannot raise a StopIteration; Python makes it a RuntimeError.
    with pytest.raises(RuntimeError if kind is StopIteration else kind):
        await in_thread(threads, fail)
    assert await in_thread(threads, lambda: "still there") == "still there"


async def test_a_call_sees_the_context_of_its_caller_and_changes_only_its_own(threads):
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("the caller's")

    def change() -> str:
        seen = variable.get()
        variable.set("the call's")
        return seen

    assert await in_thread(threads, change) == "the caller's"
    assert variable.get() == "the caller's"
    assert await in_thread(threads, change) == "the caller's"


async def test_what_a_call_that_failed_had_in_hand_is_freed_at_its_end(threads):
    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise ValueError("no")

    thing = Thing()
    gone = weakref.ref(thing)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            await in_thread(threads, fail, thing)
        await in_thread(threads, len, "")  # by now its thread has let go of it
        del thing
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_waits_for_the_end_of_its_call_and_hears_how_that_was(
    threads, fails
):
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go_on.wait(5)
        if fails:
            raise ValueError("no")
        return "late"

    waiting = asyncio.create_task(in_thread(threads, work))
    await asyncio.to_thread(begun.wait, 5)
    for _ in range(2):
        waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
    go_on.set()
    assert str((await asyncio.gather(waiting, return_exceptions=True))[0]) == (
        "no" if fails else "late"
    )


async def test_who_waits_is_let_go_when_its_process_ends(threads):
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(5)

    waiting = asyncio.create_task(in_thread(threads, work))
    await asyncio.to_thread(begun.wait, 5)
    threads.let_go()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await in_thread(threads, len, "still there") == 11


def test_a_call_may_end_after_the_loop_of_its_caller(threads, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    serving: list[threading.Thread] = []
    crashes: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)

    def work() -> None:
        serving.append(threading.current_thread())
        begun.set()
        go_on.wait(5)

    async def leave() -> None:
        left = asyncio.create_task(in_thread(threads, work))
        await asyncio.to_thread(begun.wait, 5)
        assert not left.done()
        threads.let_go()

    asyncio.run(leave())
    go_on.set()
    threads.shutdown()
    serving[0].join(5)
    assert crashes == []


def test_as_many_calls_as_there_are_run_side_by_side(told):
    everyone = threading.Barrier(300)
    for _ in range(300):
        told.start(lambda: everyone.wait(10))
    assert sorted(told.next() for _ in range(300)) == list(range(300))


def test_one_call_after_another_uses_one_thread(told):
    idents = set()
    for _ in range(200):
        told.start(threading.get_ident)
        idents.add(told.next())
    assert len(idents) == 1


def test_a_call_for_which_there_is_no_thread_is_refused_and_not_made_later(told, monkeypatch):
    made: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            told.start(lambda: made.append("refused"))
    told.start(lambda: made.append("next"))
    told.next()
    assert made == ["next"]


def test_its_threads_end_when_it_is_shut_down_and_what_runs_ends_first(threads, told):
    begun, go_on = threading.Event(), threading.Event()

    def work() -> threading.Thread:
        begun.set()
        assert go_on.wait(5)
        return threading.current_thread()

    told.start(work)
    assert begun.wait(5)
    told.start(threading.current_thread)
    idle = told.next()
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        told.start(lambda: None)
    idle.join(5)
    go_on.set()
    worked = told.next()
    worked.join(5)
    assert not idle.is_alive()
    assert not worked.is_alive()


def test_a_process_ends_though_a_call_hangs():
    program = (
        "import threading; from flybridge.handlers.calling.threads import HandlerThreads\n"
        "begun = threading.Event()\n"
        "hang = lambda: (begun.set(), threading.Event().wait())\n"
        "HandlerThreads().start(hang, print)\n"
        "begun.wait()"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
