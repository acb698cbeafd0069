"""Calls a handler in a test, within its time limit; `verdicts` says what follows."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flybridge.handlers.base import Context
from flybridge.handlers.batch import BatchContext
from flybridge.handlers.event import Event
from flybridge.handlers.registering.registration import Registration
from flybridge.handlers.trial.verdicts import Result, Settled, judge, split


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt at one event, ready to run."""

    registration: Registration
    event: Event
    attempt: int

    def handle(self) -> Any:
        registration = self.registration
        context = Context(
            self.attempt,
            registration.max_attempts,
            time.monotonic() + registration.timeout,
            self.event.id,
            self.event.type,
            registration.name,
        )
        return registration.run(self.event, context)

    def judged(self, settled: Settled) -> Result:
        return judge(settled, self.registration, self.event, self.attempt)


@dataclass(frozen=True, slots=True)
class BatchTrial:
    """One call with several events, and the results of those that the handler does not get."""

    given: Sequence[Trial | Result]

    @property
    def trials(self) -> list[Trial]:
        return [each for each in self.given if isinstance(each, Trial)]

    @property
    def results(self) -> list[Result]:
        return [each for each in self.given if isinstance(each, Result)]

    @property
    def timeout(self) -> float:
        return self.trials[0].registration.timeout

    def handle(self) -> Any:
        trials = self.trials
        registration = trials[0].registration
        context = BatchContext(
            tuple(trial.attempt for trial in trials),
            registration.max_attempts,
            time.monotonic() + registration.timeout,
            registration.name,
        )
        run: Any = registration.run  # a batch handler takes other arguments
        return run([trial.event for trial in trials], context)

    def judged(self, settled: Settled) -> list[Result]:
        trials = self.trials
        ends = iter(split(settled, len(trials), trials[0].registration.name))
        return [
            each if isinstance(each, Result) else each.judged(next(ends)) for each in self.given
        ]


def call(handle: Callable[[], Any], timeout: float) -> Settled:
    """Call a handler and await what it returns if that is awaitable; `timeout` in seconds.

    Raises:
        RuntimeError: it is async, and a loop runs in this thread already.
    """
    try:
        with _alarm(timeout):
            value = handle()
        if inspect.isawaitable(value):
            value = _drive(value, timeout)
    except _NestedLoop:
        raise
    # Not BaseException, for pytest.fail() and ^C. A handler that exits has failed, as in a worker.
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        return None, error
    return value, None


async def call_async(handle: Callable[[], Any], timeout: float, *, in_thread: bool) -> Settled:
    """The same on the running loop; a `def` handler may run in a thread, as in asyncio workers."""
    try:
        value, error = await asyncio.to_thread(_catch, handle) if in_thread else _catch(handle)
        if error is not None:
            return None, error
        if inspect.isawaitable(value):
            value = await _within(value, timeout)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the test itself was cancelled
            raise
        return None, error
    except (Exception, SystemExit) as error:
        return None, error
    return value, None


class _NestedLoop(RuntimeError):
    """A mistake of the caller, not a failure of the handler."""


def _drive(awaitable: Awaitable[Any], timeout: float) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_within(awaitable, timeout))
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    raise _NestedLoop("the handler is async, and so is the test; write: await run_async(…)")


async def _within(awaitable: Awaitable[Any], timeout: float) -> Any:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await awaitable
    except TimeoutError as error:
        raise _late(timeout) if limit.expired() else error from error


def _catch(handle: Callable[[], Any]) -> Settled:
    """What a call returned or raised. As values: a StopIteration would never end a future."""
    try:
        return handle(), None
    except (Exception, SystemExit) as error:
        return None, error


@contextmanager
def _alarm(timeout: float) -> Iterator[None]:
    """Interrupts a `def` handler, as the soft time limit of a prefork worker does.

    It works in the main thread only, as in a worker.
    """
    earlier = _left_of_timer()
    if (
        earlier is None or 0 < earlier < timeout
    ):  # an alarm of somebody else's rings first: leave it
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise _late(timeout)

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if earlier:  # pytest-timeout's, for one
            signal.setitimer(signal.ITIMER_REAL, max(0.001, earlier - time.monotonic() + began))


def _left_of_timer() -> float | None:
    """Seconds until the alarm of the process, 0 if none is set; None if none can be set."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.getitimer(signal.ITIMER_REAL)[0] if hasattr(signal, "getitimer") else None


def _late(timeout: float) -> TimeoutError:
    return TimeoutError(f"still running after {timeout:g} s; raise its timeout")
