"""Middleware: its order, what its failures mean, and that a handler runs as it would without."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from flybridge.handlers import Context, Event, Middleware, Registry, Reject, Retry
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.run import loops
from tests.workers import attempts

TYPE = "im.message.receive_v1"

Made = Callable[..., type[Middleware]]


@pytest.fixture
def table() -> Registry:
    return Registry()


@pytest.fixture
def seen() -> list[str]:
    """What was called, in order."""
    return []


def plain(name: str, seen: list[str], **raises: BaseException) -> Middleware:
    class Plain(Middleware):
        def before(self, event: Event, context: Context) -> None:
            note("before")

        def after(self, event: Event, context: Context, result: Any) -> None:
            note(f"after {result}")

        def error(self, event: Event, context: Context, error: BaseException) -> None:
            note(f"error {type(error).__name__}")

    def note(what: str) -> None:
        seen.append(f"{name} {what}")
        raising = raises.get(what.partition(" ")[0])
        if raising is not None:
            raise raising

    return Plain()


def awaiting(name: str, seen: list[str], **raises: BaseException) -> Middleware:
    inner = plain(name, seen, **raises)

    class Awaiting(Middleware):
        async def before(self, event: Event, context: Context) -> None:
            await asyncio.sleep(0)
            inner.before(event, context)

        async def after(self, event: Event, context: Context, result: Any) -> None:
            await asyncio.sleep(0)
            inner.after(event, context, result)

        async def error(self, event: Event, context: Context, error: BaseException) -> None:
            await asyncio.sleep(0)
            inner.error(event, context, error)

    return Awaiting()


def envelope(event_type: str = TYPE) -> bytes:
    header = {"event_id": "ev-1", "event_type": event_type, "app_id": "a", "tenant_key": "t"}
    return json.dumps({"schema": "2.0", "header": header, "event": {}}).encode()


def run(table: Registry, attempt: int = 1) -> Outcome:
    try:
        return attempts.run(table, envelope(), attempt, {})
    finally:
        loops.close_loop()


def by_def(work: Callable[[], Any]) -> Callable[..., Any]:
    def handler(event: Event, context: Context) -> Any:
        return work()

    return handler


def by_async_def(work: Callable[[], Any]) -> Callable[..., Any]:
    async def handler(event: Event, context: Context) -> Any:
        await asyncio.sleep(0)
        return work()

    return handler


def by_hidden_coroutine(work: Callable[[], Any]) -> Callable[..., Any]:
    hidden = by_async_def(work)

    def handler(event: Event, context: Context) -> Any:
        return hidden(event, context)

    return handler


KINDS = [by_def, by_async_def, by_hidden_coroutine]
LAYERS = [plain, awaiting]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_outer = pytest.mark.parametrize("outer", LAYERS)
every_inner = pytest.mark.parametrize("inner", LAYERS)


def fails(error: BaseException) -> Callable[[], Any]:
    def work() -> Any:
        raise error

    return work


@every_kind
@every_outer
@every_inner
async def test_before_runs_in_order_and_after_in_reverse(kind, outer, inner, table, seen) -> None:
    table.use(outer("outer", seen))
    table.use(inner("inner", seen))
    table.register(kind(lambda: seen.append("handler") or 42), TYPE)
    expected = ["outer before", "inner before", "handler", "inner after 42", "outer after 42"]

    outcome = await asyncio.to_thread(run, table)
    assert (outcome.verdict, seen) == ("done", expected)
    seen.clear()
    outcome = await attempts.run_async(table, envelope(), 1, {})
    assert (outcome.verdict, seen) == ("done", expected)


@every_kind
@every_outer
@every_inner
def test_a_failure_is_shown_in_reverse_and_stays_one(kind, outer, inner, table, seen) -> None:
    table.use(outer("outer", seen))
    table.use(inner("inner", seen))
    table.register(kind(fails(Reject("no"))), TYPE)
    outcome = run(table)
    assert seen[2:] == ["inner error Reject", "outer error Reject"]
    assert [failure.reason for failure in outcome.failed] == ["rejected"]


@every_kind
@every_outer
@every_inner
def test_who_fails_before_the_handler_keeps_it_from_running(kind, outer, inner, table, seen):
    table.use(outer("outer", seen))
    table.use(inner("inner", seen, before=Retry(after=7)))
    table.register(kind(lambda: seen.append("handler")), TYPE)
    outcome = run(table)
    assert seen == ["outer before", "inner before", "outer error Retry"]
    assert outcome.retry_after == 7


@every_kind
@every_outer
@every_inner
def test_an_error_hook_may_put_another_error_in_its_place(kind, outer, inner, table, seen) -> None:
    table.use(outer("outer", seen))
    table.use(inner("inner", seen, error=Reject("hopeless")))
    table.register(kind(fails(ValueError("x"))), TYPE)
    outcome = run(table)
    assert seen[2:] == ["inner error ValueError", "outer error Reject"]
    assert [failure.reason for failure in outcome.failed] == ["rejected"]


@every_kind
@every_outer
@every_inner
def test_a_success_stands_whatever_fails_after_it(kind, outer, inner, table, seen) -> None:
    table.use(outer("outer", seen))
    table.use(inner("inner", seen, after=ValueError("late")))
    table.register(kind(lambda: 42), TYPE)
    with structlog.testing.capture_logs() as lines:
        outcome = run(table)
    assert outcome.verdict == "done"
    assert seen[2:] == ["inner after 42", "outer after 42"]
    (line,) = [line for line in lines if line["event"] == "middleware.failed"]
    assert (line["hook"], line["log_level"]) == ("after", "error")
    assert line["handler"] == table.list()[0].name
    assert line["middleware"].endswith("Plain" if inner is plain else "Awaiting")


@every_kind
@every_outer
@every_inner
def test_only_a_verdict_after_success_is_taken_at_its_word(kind, outer, inner, table, seen) -> None:
    table.use(outer("outer", seen))
    table.use(inner("inner", seen, after=Retry(after=3)))
    table.register(kind(lambda: 42), TYPE)
    assert run(table).retry_after == 3
    assert seen[2:] == ["inner after 42", "outer error Retry"]


@every_outer
def test_a_coroutine_past_its_timeout_is_shown_as_cancelled(outer, table, seen) -> None:
    async def endless(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    table.use(outer("outer", seen))
    table.register(endless, TYPE, timeout=0.05, backoff=0, max_attempts=2)
    outcome = run(table)
    assert seen == ["outer before", "outer error CancelledError"]
    assert outcome.verdict == "retry"
    assert outcome.error == "TimeoutError: still running after 0.05 s; raise its timeout"


def test_an_after_hook_that_hangs_does_not_undo_the_success(table: Registry) -> None:
    class Hangs(Middleware):
        async def after(self, event: Event, context: Context, result: Any) -> None:
            await asyncio.Event().wait()

    table.use(Hangs)
    table.register(by_async_def(lambda: None), TYPE, timeout=0.05)
    with structlog.testing.capture_logs() as lines:
        assert run(table).verdict == "done"
    assert [line["event"] for line in lines] == ["middleware.failed"]


def test_an_order_to_exit_is_not_replaced(table: Registry, seen: list[str]) -> None:
    table.use(plain("outer", seen, error=ValueError("x")))
    table.register(by_def(fails(KeyboardInterrupt())), TYPE)
    with pytest.raises(KeyboardInterrupt), structlog.testing.capture_logs():
        run(table)
    assert seen == ["outer before", "outer error KeyboardInterrupt"]


async def test_a_def_handler_between_async_hooks_does_not_block_the_loop(table, seen) -> None:
    loop, begun, released = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def handler(event: Event, context: Context) -> None:
        seen.append(threading.current_thread().name)
        loop.call_soon_threadsafe(begun.set)
        assert released.wait(5)

    table.use(awaiting("outer", seen))
    table.register(handler, TYPE)
    running = asyncio.create_task(attempts.run_async(table, envelope(), 1, {}))
    await begun.wait()
    released.set()
    assert (await running).verdict == "done"
    assert seen[1] != threading.main_thread().name


async def test_no_def_handler_between_async_hooks_waits_for_a_thread(table, seen) -> None:
    together = threading.Barrier(50)
    table.use(awaiting("outer", seen))
    table.register(lambda event, context: together.wait(10), TYPE, name="meet")
    runs = (attempts.run_async(table, envelope(), 1, {}) for _ in range(together.parties))
    assert {outcome.verdict for outcome in await asyncio.gather(*runs)} == {"done"}


def test_a_process_ends_though_a_def_handler_between_async_hooks_hangs() -> None:
    program = f"""
import asyncio, os, threading
from flybridge.handlers import Middleware, Registry
from flybridge.workers.run import batch_runner, loops
from flybridge.workers.run.items import Item

class Outer(Middleware):
    async def before(self, event, context): ...

begun = threading.Event()
table = Registry()
table.use(Outer())
hang = lambda event, context: (begun.set(), threading.Event().wait())
table.register(hang, {TYPE!r}, name="hang")

item = Item("", {TYPE!r}, {envelope()!r}, 1, {{}}, None, "", "")

async def main():
    running = asyncio.create_task(batch_runner.run_async(table, [item], lambda items: None))
    await asyncio.to_thread(begun.wait)
    loops.threads_of(os.getpid()).let_go()

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
    assert ended.returncode == 0


def test_hooks_of_def_and_handler_share_the_handlers_thread(table: Registry) -> None:
    where: list[str] = []

    class Notes(Middleware):
        def before(self, event: Event, context: Context) -> None:
            where.append(threading.current_thread().name)

    table.use(Notes())
    table.register(by_def(lambda: where.append(threading.current_thread().name)), TYPE)
    table.register(by_def(lambda: None), TYPE, name="other")
    assert run(table).verdict == "done"
    assert "MainThread" not in where[:2]


def test_the_default_is_within_the_middleware_too(table: Registry, seen: list[str]) -> None:
    table.use(plain("outer", seen))
    table.set_default(by_def(lambda: "default"))
    assert run(table).verdict == "done"
    assert seen == ["outer before", "outer after default"]


def test_an_event_that_a_narrowed_handler_skips_shows_no_middleware(table, seen) -> None:
    table.use(plain("outer", seen))
    table.register(by_def(lambda: 1), "approval.approval.approved_v1")
    header = {"ts": "1", "uuid": "ev", "token": "t", "type": "event_callback"}
    body = {"type": "approval_instance", "status": "REJECTED", "app_id": "a", "tenant_key": "t"}
    outcome = attempts.run(table, json.dumps({**header, "event": body}).encode(), 1, {})
    assert (outcome.verdict, seen) == ("done", [])


def test_without_middleware_the_registration_is_the_very_same(table: Registry) -> None:
    registration = table.register(by_def(lambda: None), TYPE)
    assert table.lookup(TYPE)[0] is registration
    table.use(plain("outer", []))
    assert table.lookup(TYPE)[0] is not registration
    assert table.lookup(TYPE)[0] is table.list()[0] is table.get(registration.name)


def test_async_hooks_make_a_def_handler_async_for_the_routes(table: Registry) -> None:
    table.register(by_def(lambda: None), TYPE)
    assert not table.lookup(TYPE)[0].is_async
    table.use(awaiting("outer", []))
    assert table.lookup(TYPE)[0].is_async


def test_a_class_is_called_at_the_first_event_and_once(table: Registry) -> None:
    made: list[int] = []

    class Counts(Middleware):
        def __init__(self) -> None:
            made.append(os.getpid())

        def before(self, event: Event, context: Context) -> None: ...

        def after(self, event: Event, context: Context, result: Any) -> None: ...

    assert table.use(Counts) is Counts
    table.register(by_def(lambda: None), TYPE)
    assert made == []
    run(table)
    run(table)
    assert made == [os.getpid()]


def test_a_forked_child_makes_its_own(table: Registry) -> None:
    made: list[int] = []

    class Counts(Middleware):
        def __init__(self) -> None:
            made.append(os.getpid())

        def before(self, event: Event, context: Context) -> None: ...

    table.use(Counts)
    table.register(by_def(lambda: None), TYPE)
    run(table)
    child = os.fork()
    if not child:
        run(table)
        os._exit(len(made) if made[-1] == os.getpid() else 100)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


class Needy(Middleware):
    def __init__(self, url: str) -> None: ...

    def before(self, event: Event, context: Context) -> None: ...


class Idle(Middleware): ...


class Slip(Middleware):
    def befor(self, event: Event, context: Context) -> None: ...


class OnError(Middleware):
    def before(self, event: Event, context: Context) -> None: ...

    def on_error(self, event: Event, context: Context, error: BaseException) -> None: ...


class Short(Middleware):
    def after(self, event: Event, context: Context) -> None: ...  # type: ignore[override]


class Yields(Middleware):
    def before(self, event: Event, context: Context) -> Any:
        yield


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Needy, "give an instance"),
        (Idle, "does nothing; write before"),
        (Slip, "did you mean 'before'"),
        (OnError, "did you mean 'error'"),
        (Short, r"does not accept \(self, event, context, result\)"),
        (Yields, "`yield` would never run"),
        (42, "int is not a middleware"),
        (dict, "dict is not a middleware"),
        (by_def(fails(ValueError())), "function is not a middleware"),
    ],
)
def test_what_would_do_nothing_is_refused_with_a_sentence(table, given, said) -> None:
    with pytest.raises(RegistrationInvalid, match=said):
        table.use(given)
    assert table.lookup(TYPE) == (table.default,)


def test_one_middleware_is_used_once(table: Registry) -> None:
    one = plain("outer", [])
    table.use(one)
    with pytest.raises(RegistrationInvalid, match="in use already"):
        table.use(one)


def test_a_def_hook_that_returns_a_coroutine_is_no_silent_success(table: Registry) -> None:
    class Hidden(Middleware):
        def before(self, event: Event, context: Context) -> Any:
            return asyncio.sleep(0)

    table.use(Hidden())
    table.register(by_def(lambda: None), TYPE)
    assert "write it as async def" in run(table).error


def test_a_middleware_hook_sees_the_soft_time_limit(table: Registry, seen: list[str]) -> None:
    class SoftTimeLimitExceeded(Exception): ...

    table.use(plain("outer", seen))
    table.register(by_def(fails(SoftTimeLimitExceeded())), TYPE)
    assert run(table).verdict == "retry"
    assert seen[-1] == "outer error SoftTimeLimitExceeded"
