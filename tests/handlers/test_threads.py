"""Threads for handlers: every call begins at once, and none keeps the process from its end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest

from handlers.threads import HandlerThreads


@pytest.fixture
def threads() -> Iterator[HandlerThreads]:
    threads = HandlerThreads()
    yield threads
    threads.shutdown()


def test_a_value_or_an_exception_is_handed_on(threads):
    def fail() -> None:
        raise SystemExit("no")

    assert threads.submit(divmod, 7, 2).result(5) == (3, 1)
    assert isinstance(threads.submit(fail).exception(5), SystemExit)
    assert threads.submit(lambda: "still there").result(5) == "still there"


def test_what_a_call_that_failed_had_in_hand_is_freed_with_its_future(threads):
    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise ValueError("no")

    thing = Thing()
    gone = weakref.ref(thing)
    gc.disable()
    try:
        call = threads.submit(fail, thing)
        assert isinstance(call.exception(5), ValueError)
        threads.submit(len, "").result(5)  # by now its thread has let go of it
        del thing, call
        assert gone() is None
    finally:
        gc.enable()


def test_as_many_calls_as_there_are_run_side_by_side(threads):
    everyone = threading.Barrier(300)
    calls = [threads.submit(everyone.wait, 10) for _ in range(300)]
    assert sorted(call.result(10) for call in calls) == list(range(300))


def test_one_call_after_another_uses_one_thread(threads):
    assert len({threads.submit(threading.get_ident).result(5) for _ in range(200)}) == 1


def test_a_call_that_was_cancelled_before_it_began_is_not_made(threads, monkeypatch):
    made: list[str] = []
    begin: list[Callable[[], None]] = []
    with monkeypatch.context() as late:
        late.setattr(threading.Thread, "start", lambda self: begin.append(self.run))
        call = threads.submit(made.append, "call")
    assert call.cancel()
    threads.shutdown()
    begin[0]()
    with pytest.raises(CancelledError):
        call.result(5)
    assert made == []


def test_a_call_for_which_there_is_no_thread_is_refused_and_not_made_later(threads, monkeypatch):
    made: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(made.append, "refused")
    threads.submit(made.append, "next").result(5)
    assert made == ["next"]


def test_its_threads_end_when_it_is_shut_down_and_what_runs_ends_first(threads):
    begun, go_on = threading.Event(), threading.Event()

    def work() -> threading.Thread:
        begun.set()
        assert go_on.wait(5)
        return threading.current_thread()

    busy = threads.submit(work)
    assert begun.wait(5)
    idle = threads.submit(threading.current_thread).result(5)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(len, "")
    idle.join(5)
    go_on.set()
    worked = busy.result(5)
    worked.join(5)
    assert not idle.is_alive()
    assert not worked.is_alive()


def test_a_process_ends_though_a_call_hangs():
    program = (
        "import threading; from handlers.threads import HandlerThreads\n"
        "begun = threading.Event()\n"
        "HandlerThreads().submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
