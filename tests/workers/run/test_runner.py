from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from flybridge.bridge.process.boottime import boottime
from flybridge.handlers import Context, Event, Handler, Registry, Reject, Retry
from flybridge.handlers.registry import Registration
from flybridge.workers.claim.outcomes import LOOK_AGAIN, Failure, Outcome
from flybridge.workers.claim.tries import Try
from flybridge.workers.run.loops import close_loop
from tests.workers.attempts import run, run_async

HEADER = {"event_id": "ev-1", "event_type": "im.message.receive_v1", "app_id": "cli_x"}
ENVELOPE = json.dumps(
    {"schema": "2.0", "header": HEADER, "event": {"message": {"content": "PRIVATE"}}}
).encode()

Runner = Callable[..., Outcome]


class SoftTimeLimitExceeded(Exception):
    """As Celery's: no more than an Exception."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks are drawn slowly outside of production."""
    with structlog.testing.capture_logs():
        yield


def run_on_a_loop(*args: Any, **options: Any) -> Outcome:
    return asyncio.run(run_async(*args, **options))


@pytest.fixture(params=[run, run_on_a_loop], ids=["own_loop", "running_loop"])
def either(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """What both ways of running must do alike."""
    yield request.param
    close_loop()


@pytest.fixture
def own_loop() -> Iterator[None]:
    yield
    close_loop()


@pytest.fixture
def table() -> Registry:
    return Registry()


def succeed(event: Event, context: Context) -> None: ...


async def succeed_later(event: Event, context: Context) -> None:
    await asyncio.sleep(0)


def failing(error: BaseException) -> Callable[[Event, Context], None]:
    def fail(event: Event, context: Context) -> None:
        raise error

    return fail


def failing_later(error: BaseException) -> Callable[[Event, Context], Any]:
    async def fail(event: Event, context: Context) -> None:
        await asyncio.sleep(0)
        raise error

    return fail


def fill(table: Registry, **handlers: Any) -> None:
    for name, handler in handlers.items():
        table.register(handler, "im.*", name=name, backoff=30)


def test_what_succeeds_is_finished(either: Runner, table: Registry) -> None:
    fill(table, a=succeed, b=succeed_later)
    assert either(table, ENVELOPE, 1, {}) == Outcome(finished=("a", "b"))
    table.unregister("b")
    assert either(table, ENVELOPE, 1, {}) == Outcome(finished=("a",))
    table.unregister("a")
    fill(table, b=succeed_later)
    assert either(table, ENVELOPE, 1, {}) == Outcome(finished=("b",))


def born(*, ago: float) -> float:
    return boottime() - ago


def test_an_event_too_old_for_a_handler_is_not_begun_for_it(
    either: Runner, table: Registry
) -> None:
    table.register(succeed, "im.*", name="a", max_age=60)
    table.register(succeed_later, "im.*", name="b", max_age=6000)
    outcome = either(table, ENVELOPE, 1, {}, born=born(ago=300))
    assert outcome.finished == ("b",)
    assert outcome.failed == (Failure("a", "age", "300 s old; max_age is 60 s"),)
    assert either(table, ENVELOPE, 1, {}, born=born(ago=7000)).finished == ()


@pytest.mark.parametrize("at", [None, born(ago=-3600)], ids=["unknown", "ahead"])
def test_an_age_that_nobody_knows_or_that_lies_ahead_is_no_age(
    either: Runner, table: Registry, at: float | None
) -> None:
    table.register(succeed, "im.*", name="a", max_age=1)
    assert either(table, ENVELOPE, 1, {}, born=at).finished == ("a",)


def test_who_fails_too_late_for_another_attempt_is_given_up(
    either: Runner, table: Registry
) -> None:
    options = {"max_age": 60, "backoff": 30, "max_attempts": 9}
    table.register(failing(ValueError("x")), "im.*", name="a", **options)
    table.register(failing_later(ValueError("y")), "im.*", name="b", **options)
    assert either(table, ENVELOPE, 1, {}, born=born(ago=10)).verdict == "retry"
    outcome = either(table, ENVELOPE, 1, {}, born=born(ago=55))
    assert [(each.reason, each.error) for each in outcome.failed] == [
        ("age", "ValueError: x"),
        ("age", "ValueError: y"),
    ]
    assert outcome.verdict == "dead"


def test_an_event_without_a_handler_here_is_left_to_others(either: Runner, table: Registry) -> None:
    outcome = either(table, ENVELOPE, 1, {})
    assert (outcome.finished, outcome.returned, outcome.retry_after) == ((), True, LOOK_AGAIN)


def test_the_first_default_runs_only_where_it_counts_as_a_handler(
    either: Runner, table: Registry
) -> None:
    table.settle_unhandled()
    outcome = either(table, ENVELOPE, 1, {})
    assert outcome.finished == ("flybridge.handlers.default:LogUnhandled",)
    assert outcome.verdict == "done"


def test_an_entry_whose_type_is_not_its_envelopes_ends_where_that_has_no_handler(
    table: Registry,
) -> None:
    table.register(succeed, "contact.*")
    outcome = run(table, ENVELOPE, 1, {}, event_type="contact.user.created_v3")
    assert [each.reason for each in outcome.failed] == ["unhandled"]
    assert "'contact.user.created_v3'" in outcome.failed[0].error


@pytest.mark.parametrize("envelope", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"schema":"2.0"}'])
def test_what_cannot_be_decoded_is_dead(either: Runner, table: Registry, envelope: bytes) -> None:
    outcome = either(table, envelope, 1, {})
    assert [(each.handler, each.reason) for each in outcome.failed] == [("", "decode")]
    assert outcome.failed[0].error.startswith("EventInvalid: ")
    assert outcome.verdict == "dead"


def test_a_handler_is_told_its_event_and_attempt(either: Runner, table: Registry) -> None:
    seen: list[tuple[Event, Context]] = []
    table.register(
        lambda event, context: seen.append((event, context)),
        "im.*",
        name="a",
        max_attempts=9,
        timeout=60,
    )
    either(table, ENVELOPE, 4, {})
    ((event, context),) = seen
    assert (event.id, event.body["message"]["content"]) == ("ev-1", "PRIVATE")
    assert (context.attempt, context.max_attempts, context.handler) == (4, 9, "a")
    assert (context.event_id, context.event_type) == ("ev-1", "im.message.receive_v1")
    assert 0 < context.remaining() <= 60


def test_handlers_with_a_mark_do_not_run_again(either: Runner, table: Registry) -> None:
    fill(table, a=failing(AssertionError()), b=succeed, c=failing(AssertionError()))
    marks = {"a": "", "c": "rejected\nReject: no\nsuch chat", "gone": "attempts\nValueError"}
    outcome = either(table, ENVELOPE, 2, marks)
    assert outcome.finished == ("b",)
    assert outcome.failed == (
        Failure("c", "rejected", "Reject: no\nsuch chat"),
        Failure("gone", "attempts", "ValueError"),
    )
    assert outcome.verdict == "dead"
    assert either(table, ENVELOPE, 2, {"a": "", "b": "", "c": ""}) == Outcome()


@pytest.mark.parametrize("make", [failing, failing_later])
@pytest.mark.parametrize("beside_another", [False, True])
@pytest.mark.parametrize(
    ("error", "verdict", "text"),
    [
        (ValueError("x"), "retry", "ValueError: x"),
        (Retry(7), "retry", "Retry: the handler asked for another attempt"),
        (Reject("no"), "dead", "Reject: no"),
        (SoftTimeLimitExceeded(), "retry", "SoftTimeLimitExceeded"),
        (TimeoutError("of its own"), "retry", "TimeoutError: of its own"),
        (SystemExit(3), "retry", "SystemExit: 3"),
        (asyncio.CancelledError(), "retry", "CancelledError"),
    ],
)
def test_a_failure_is_an_outcome_and_disturbs_no_other_handler(
    either: Runner,
    table: Registry,
    make: Callable[[BaseException], Any],
    beside_another: bool,
    error: BaseException,
    verdict: str,
    text: str,
) -> None:
    fill(table, bad=make(error), **({"good": succeed} if beside_another else {}))
    outcome = either(table, ENVELOPE, 1, {})
    assert outcome.verdict == verdict
    assert outcome.finished == (("good",) if beside_another else ())
    assert text in (outcome.error, *(failure.error for failure in outcome.failed))
    if isinstance(error, Retry):
        assert outcome.retry_after == pytest.approx(7, abs=1)


def test_a_stop_iteration_does_not_hang_a_thread_for_ever(either: Runner, table: Registry) -> None:
    fill(table, bad=failing(StopIteration()), good=succeed)
    outcome = either(table, ENVELOPE, 1, {})
    assert outcome.finished == ("good",)
    assert "StopIteration" in outcome.error


def test_attempts_used_up_are_the_end(either: Runner, table: Registry) -> None:
    table.register(failing(ValueError("x")), "im.*", name="a", max_attempts=3)
    assert either(table, ENVELOPE, 2, {}).verdict == "retry"
    assert either(table, ENVELOPE, 3, {}) == Outcome(
        failed=(Failure("a", "attempts", "ValueError: x"),)
    )


def test_the_next_attempt_comes_when_the_first_handler_wants_it(
    either: Runner, table: Registry
) -> None:
    fill(table, a=failing(Retry(60, "a")), b=failing(Retry(7, "b")), c=failing(Reject("c")))
    outcome = either(table, ENVELOPE, 1, {})
    assert (outcome.retry_after, outcome.error) == (pytest.approx(7, abs=1), "Retry: a")
    assert outcome.failed == (Failure("c", "rejected", "Reject: c"),)


def test_a_field_of_another_shape_costs_no_event(either: Runner, table: Registry) -> None:
    odd = ENVELOPE.replace(b'{"message": {', b'{"sender": [1], "message": {')
    seen: list[Any] = []
    fill(table, a=lambda event, context: seen.append(event.payload.sender))
    assert either(table, odd, 1, {}).verdict == "done"
    assert seen == [[1]]


@pytest.mark.parametrize("beside_another", [False, True])
def test_an_async_handler_is_cancelled_at_its_timeout(
    either: Runner, table: Registry, beside_another: bool
) -> None:
    ended: list[str] = []

    async def endless(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    table.register(endless, "im.*", name="a", timeout=0.02)
    if beside_another:
        fill(table, b=succeed)
    outcome = either(table, ENVELOPE, 1, {})
    assert ended == ["endless"]
    assert outcome.error == "TimeoutError: still running after 0.02 s; raise its timeout"


def test_handlers_of_one_event_run_at_the_same_time(either: Runner, table: Registry) -> None:
    barrier = threading.Barrier(3)

    def meet(event: Event, context: Context) -> None:
        barrier.wait(10)

    async def meet_later(event: Event, context: Context) -> None:
        await asyncio.to_thread(barrier.wait, 10)

    fill(table, a=meet, b=meet_later, c=meet_later)
    assert either(table, ENVELOPE, 1, {}).finished == ("a", "b", "c")


def test_handlers_in_order_begin_when_the_one_before_has_ended_however_that_was(
    either: Runner, table: Registry
) -> None:
    ran: list[str] = []

    async def dawdle(event: Event, context: Context) -> None:
        ran.append("dawdle began")
        await asyncio.sleep(0.01)
        ran.append("dawdle ended")
        raise ValueError

    def dash(event: Event, context: Context) -> None:
        ran.append("dash")

    fill(table, b=dawdle, a=dash)
    assert either(table, ENVELOPE, 1, {}, parallel=False).finished == ("a",)
    assert ran == ["dawdle began", "dawdle ended", "dash"]


@pytest.mark.parametrize("beside_another", [False, True])
def test_an_async_handler_hidden_by_a_decorator_still_runs(
    either: Runner, table: Registry, beside_another: bool
) -> None:
    ran: list[str] = []

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @logged
    async def hidden(event: Event, context: Context) -> None:
        await asyncio.sleep(0)
        ran.append(event.id)

    fill(table, a=hidden, **({"b": succeed} if beside_another else {}))
    assert either(table, ENVELOPE, 1, {}).verdict == "done"
    assert ran == ["ev-1"]


def test_a_handler_that_yields_has_not_run(either: Runner, table: Registry) -> None:
    def generating(event: Event, context: Context) -> Any:
        yield

    async def generating_later(event: Event, context: Context) -> Any:
        yield

    @functools.wraps(succeed)
    def wrapping(event: Event, context: Context) -> Any:
        return generating(event, context)

    @functools.wraps(succeed)
    def wrapping_later(event: Event, context: Context) -> Any:
        return generating_later(event, context)

    fill(table, a=wrapping, b=wrapping_later)
    outcome = either(table, ENVELOPE, 5, {})
    assert [failure.handler for failure in outcome.failed] == ["a", "b"]
    assert all("must not yield" in failure.error for failure in outcome.failed)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("later", [True, False])
def test_what_a_handler_leaves_in_its_context_no_other_event_finds(
    either: Runner, table: Registry, alone: bool, later: bool
) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    found: list[str] = []

    def look(event: Event, context: Context) -> None:
        found.append(tenant.get())
        tenant.set("the last one")

    async def look_later(event: Event, context: Context) -> None:
        look(event, context)

    fill(table, a=look_later if later else look)
    if not alone:
        fill(table, b=succeed_later)
    for _ in range(2):
        assert either(table, ENVELOPE, 1, {}).verdict == "done"
    assert found == ["nobody", "nobody"]


def test_a_failing_factory_is_a_failed_attempt(either: Runner, table: Registry) -> None:
    def factory() -> Handler:
        raise OSError("database is away")

    fill(table, a=factory, b=succeed)
    outcome = either(table, ENVELOPE, 1, {})
    assert (outcome.finished, outcome.error) == (("b",), "OSError: database is away")


def test_around_encloses_every_handler_and_sees_its_failure(
    either: Runner, table: Registry
) -> None:
    current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="")
    seen: dict[str, list[object]] = {}

    @contextmanager
    def around(registration: Registration) -> Iterator[None]:
        steps = seen.setdefault(registration.name, [])
        token = current.set(registration.name)
        try:
            yield
        except ValueError as error:
            steps.append(str(error))
            raise
        finally:
            current.reset(token)
            steps.append("left")

    def look(event: Event, context: Context) -> None:
        seen[context.handler].append(current.get())

    async def fail_later(event: Event, context: Context) -> None:
        seen[context.handler].append(current.get())
        raise ValueError("x")

    fill(table, a=look)
    assert either(table, ENVELOPE, 1, {}, around=around).verdict == "done"
    assert seen == {"a": ["a", "left"]}
    fill(table, b=fail_later)
    assert either(table, ENVELOPE, 1, {}, around=around).verdict == "retry"
    assert seen == {"a": ["a", "left", "a", "left"], "b": ["b", "x", "left"]}


def test_failures_are_logged_without_bodies(either: Runner, table: Registry) -> None:
    fill(table, a=failing(ValueError("x")), b=failing_later(Retry(1)))
    with structlog.testing.capture_logs() as lines:
        either(table, ENVELOPE, 3, {})
    assert sorted(line["handler"] for line in lines) == ["a", "b"]
    assert {(line["event"], line["attempt"], line["event_id"]) for line in lines} == {
        ("attempt.failed", 3, "ev-1")
    }
    assert "PRIVATE" not in str(lines)


def test_an_outcome_can_go_back_to_the_main_process(table: Registry) -> None:
    fill(table, a=failing(ValueError("x")))
    outcome = run(table, ENVELOPE, 1, {})
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301


# The process' own.


@pytest.mark.parametrize("make", [failing, failing_later])
def test_a_keyboard_interrupt_ends_the_run(
    own_loop: None, table: Registry, make: Callable[[BaseException], Any]
) -> None:
    fill(table, a=make(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(table, ENVELOPE, 1, {})


async def start_what_exits(event: Event, context: Context) -> None:
    async def leave() -> None:
        raise SystemExit(1)

    await asyncio.gather(leave())


@pytest.mark.parametrize("handler", [start_what_exits, failing_later(GeneratorExit())])
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_an_exit_that_stops_the_loop_is_a_failure_like_another(
    own_loop: None, table: Registry, handler: Any, in_main_thread: bool
) -> None:
    fill(table, a=handler)
    outcomes: list[Outcome] = []

    def run_twice() -> None:
        outcomes.append(run(table, ENVELOPE, 5, {}))
        table.unregister("a")
        fill(table, b=succeed_later)
        outcomes.append(run(table, ENVELOPE, 1, {}))
        close_loop()

    if in_main_thread:
        run_twice()
    else:
        thread = threading.Thread(target=run_twice)
        thread.start()
        thread.join(10)
    assert [each.verdict for each in outcomes] == ["dead", "done"]


def test_a_single_plain_handler_runs_in_the_calling_thread_without_a_loop(table: Registry) -> None:
    def look(event: Event, context: Context) -> None:
        assert threading.current_thread() is threading.main_thread()
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    fill(table, a=look)
    assert run(table, ENVELOPE, 1, {}).verdict == "done"


def test_the_soft_time_limit_strikes_whoever_runs_and_leaves_nothing_running(
    own_loop: None, table: Registry
) -> None:
    ended: list[str] = []

    async def endless(event: Event, context: Context) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    def strike(*_: object) -> None:
        raise SoftTimeLimitExceeded

    previous = signal.signal(signal.SIGALRM, strike)
    try:
        fill(table, quick=succeed_later, slow=endless)
        outcome = run(table, ENVELOPE, 1, {})
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert ended == ["endless"]
    assert (outcome.finished, outcome.error) == (("quick",), "SoftTimeLimitExceeded")


@pytest.mark.parametrize("own_timeout", [None, 0.02])
def test_what_a_failed_coroutine_has_given_to_a_thread_is_waited_for(
    own_loop: None, table: Registry, own_timeout: float | None
) -> None:
    given_up = threading.Event()
    ended: list[bool] = []

    def errand() -> None:
        ended.append(given_up.wait(10))
        time.sleep(0.05)
        ended.append(True)

    async def give(event: Event, context: Context) -> None:
        try:
            await asyncio.wait_for(asyncio.to_thread(errand), own_timeout)
        finally:
            given_up.set()

    table.register(give, "im.*", name="a", timeout=0.05)
    outcome = run(table, ENVELOPE, 1, {})
    assert outcome.error.startswith("TimeoutError")
    assert ended == [True, True]


async def test_cancelling_the_run_cancels_its_handlers_and_passes_on(table: Registry) -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def endless(event: Event, context: Context) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(context.handler)

    for handlers in ({"a": endless}, {"b": endless}):
        fill(table, **handlers)
        ended.clear()
        started.clear()
        task = asyncio.create_task(run_async(table, ENVELOPE, 1, {}))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(ended) == [each.name for each in table.list()]


async def test_a_plain_handler_does_not_hold_up_the_running_loop(table: Registry) -> None:
    released = threading.Event()

    def wait(event: Event, context: Context) -> None:
        assert released.wait(10)

    fill(table, a=wait)
    task = asyncio.create_task(run_async(table, ENVELOPE, 1, {}))
    await asyncio.sleep(0)
    released.set()
    assert (await task).finished == ("a",)


class Script:
    """A handler that notes its attempts, and does what it is told for each."""

    def __init__(self, *acts: Any) -> None:
        self.acts = acts
        self.attempts: list[int] = []

    async def __call__(self, event: Event, context: Context) -> None:
        self.attempts.append(context.attempt)
        act = self.acts[len(self.attempts) - 1] if len(self.attempts) <= len(self.acts) else None
        if isinstance(act, BaseException):
            raise act
        if act is not None:
            await act()


def test_a_retry_that_is_due_while_another_handler_runs_waits_for_nobody(
    either: Runner, table: Registry
) -> None:
    again = threading.Event()

    async def until_again() -> None:
        await asyncio.to_thread(again.wait, 5)

    async def tell() -> None:
        again.set()

    quick, slow = Script(Retry(0.01), Retry(0), tell), Script(until_again)
    fill(table, quick=quick.__call__, slow=slow.__call__)
    outcome = either(table, ENVELOPE, 1, {})
    assert outcome == Outcome(finished=("quick", "slow"))
    assert (quick.attempts, slow.attempts) == ([1, 2, 3], [1])


def test_a_retry_beside_another_handler_counts_and_ends_with_the_attempts(
    either: Runner, table: Registry
) -> None:
    third = threading.Event()

    async def last() -> None:
        third.set()
        raise Retry(0)

    async def until_third() -> None:
        await asyncio.to_thread(third.wait, 5)

    quick = Script(Retry(0), Retry(0), last, Retry(0))
    table.register(quick.__call__, "im.*", name="quick", max_attempts=3)
    table.register(Script(until_third).__call__, "im.*", name="slow")
    outcome = either(table, ENVELOPE, 1, {})
    assert [(each.handler, each.reason) for each in outcome.failed] == [("quick", "attempts")]
    assert (outcome.finished, quick.attempts) == (("slow",), [1, 2, 3])


def test_of_several_handlers_each_has_a_time_and_attempts_of_its_own(
    either: Runner, table: Registry
) -> None:
    late, soon = Script(Retry(600)), Script(Retry(60), Retry(60), None)
    fill(table, late=late.__call__, soon=soon.__call__)
    outcome = either(table, ENVELOPE, 1, {})
    assert [(each.handler, each.made, round(each.after)) for each in outcome.later] == [
        ("late", 1, 600), ("soon", 1, 60),
    ]  # fmt: skip

    now = time.monotonic()
    tries = {"late": Try(1, now + 540), "soon": Try(1, now)}
    outcome = either(table, ENVELOPE, 7, {}, tries=tries)
    # Only what was called is told anew; what is not due keeps its time.
    assert [(each.handler, each.made) for each in outcome.later] == [("soon", 2)]
    assert outcome.retry_after == pytest.approx(60, abs=1)
    outcome = either(table, ENVELOPE, 8, {}, tries={"late": Try(1, now + 480), "soon": Try(2, now)})
    assert (outcome.finished, outcome.later, outcome.verdict) == (("soon",), (), "retry")
    assert outcome.retry_after == pytest.approx(480, abs=2)
    outcome = either(table, ENVELOPE, 9, {"soon": ""}, tries={"late": Try(1, now)})
    assert (outcome.finished, outcome.verdict) == (("late",), "done")
    assert (late.attempts, soon.attempts) == ([1, 2], [1, 2, 3])


def test_a_handler_that_is_registered_no_more_is_not_waited_for(
    either: Runner, table: Registry
) -> None:
    fill(table, here=succeed)
    tries = {"gone": Try(1, time.monotonic() + 600)}
    assert either(table, ENVELOPE, 2, {}, tries=tries).verdict == "done"
