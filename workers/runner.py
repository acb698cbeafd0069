"""Runs the handlers of one event and says how they ended. It knows no Redis and no Celery.

A single `def` handler, the common case, is called directly. Everything else goes through an event
loop: the thread's own in `run`, the running one in `run_async`. `def` handlers that share an event
with others run in threads. Nothing stops a `def` handler from outside but the soft time limit, an
exception that Celery raises in the main thread by a signal.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from handlers.base import Context
from handlers.errors import EventInvalid
from handlers.event import Event
from handlers.registry import Registration, Registry
from workers.failures import Again, describe, is_too_old, judge
from workers.loops import close_loop, drive, threads
from workers.outcomes import Failure, Outcome

__all__ = ["Around", "close_loop", "run", "run_async"]

Around = Callable[[Registration], AbstractContextManager[Any]]
"""Makes the context in which a handler runs; its failures pass through it. For tracing."""

THREADS = 8
"""For `def` handlers beside others, per process."""

ASYNC_THREADS = 32
"""For `def` handlers in the asyncio pool, per process."""

Result = Failure | Again | None
"""Of one handler; None for success."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What all handlers of the event have in common."""

    event: Event
    number: int
    around: Around | None
    since: int
    """Unix ms from which the event's age counts; 0 when nobody knows."""

    def age(self) -> float:
        """Seconds; 0 when the clock of who stamped the event is ahead of ours."""
        return max(0.0, time.time() - self.since / 1000) if self.since else 0.0


def run(
    registry: Registry,
    envelope: bytes,
    attempt: int,
    marks: Mapping[str, str],
    *,
    event_id: str = "",
    since: int = 0,
    around: Around | None = None,
) -> Outcome:
    """Run the handlers of an event that have no mark; for processes, threads and solo.

    Args:
        registry: where the handlers are.
        envelope: Feishu's JSON.
        attempt: 1 for the first.
        marks: handler -> "" if it succeeded earlier, "reason\\nerror" if it was given up.
        event_id: of the entry, for envelopes that carry none.
        since: Unix ms from which the event's age counts; 0 when nobody knows.
        around: makes a context manager that encloses each handler.

    Returns:
        How it ended; a failing handler raises nothing.

    Raises:
        KeyboardInterrupt, SystemExit: a signal told the process to end.
    """
    try:
        event = Event.from_json(envelope, event_id)
    except EventInvalid as error:
        return _undecodable(error)
    this = Attempt(event, attempt, around, since)
    waiting = _waiting(registry.lookup(event.type), marks)
    results = _too_old(waiting, this)
    young = [each for each in waiting if each.name not in results] if results else waiting
    if len(young) == 1 and not young[0].is_async:
        results[young[0].name] = _run_directly(young[0], this)
    elif young:
        _run_on_own_loop(young, this, results)
    return _outcome(waiting, results, marks)


async def run_async(
    registry: Registry,
    envelope: bytes,
    attempt: int,
    marks: Mapping[str, str],
    *,
    event_id: str = "",
    since: int = 0,
    around: Around | None = None,
) -> Outcome:
    """The same on the running event loop; `def` handlers go to threads.

    Raises:
        asyncio.CancelledError: the caller was cancelled; async handlers were cancelled first.
    """
    try:
        event = Event.from_json(envelope, event_id)
    except EventInvalid as error:
        return _undecodable(error)
    this = Attempt(event, attempt, around, since)
    waiting = _waiting(registry.lookup(event.type), marks)
    results = _too_old(waiting, this)
    young = [each for each in waiting if each.name not in results]
    await _run_all(young, this, threads(ASYNC_THREADS, os.getpid()), results)
    return _outcome(waiting, results, marks)


def _waiting(
    registrations: tuple[Registration, ...], marks: Mapping[str, str]
) -> tuple[Registration, ...]:
    if not marks:
        return registrations
    return tuple(each for each in registrations if each.name not in marks)


def _too_old(waiting: Sequence[Registration], this: Attempt) -> dict[str, Result]:
    """The failures of handlers for which the event comes too late."""
    limited = [each for each in waiting if each.max_age is not None]
    age = this.age() if limited else 0.0
    return {
        each.name: Failure(each.name, "age", f"{age:.0f} s old; max_age is {each.max_age:g} s")
        for each in limited
        if is_too_old(each, age)
    }


def _undecodable(error: EventInvalid) -> Outcome:
    return Outcome(failed=(Failure("", "decode", describe(error)),))


def _outcome(
    waiting: tuple[Registration, ...], results: Mapping[str, Result], marks: Mapping[str, str]
) -> Outcome:
    in_order = [results[each.name] for each in waiting]
    finished = tuple(each.name for each in waiting if results[each.name] is None)
    failed = (*_given_up(marks), *(result for result in in_order if isinstance(result, Failure)))
    again = [result for result in in_order if isinstance(result, Again)]
    if not again:
        return Outcome(finished, failed)
    return Outcome(finished, failed, min(each.after for each in again), again[0].error)


def _given_up(marks: Mapping[str, str]) -> Iterable[Failure]:
    for handler, mark in marks.items():
        if mark:
            reason, _, error = mark.partition("\n")
            yield Failure(handler, reason, error)


# One def handler, called directly.


def _run_directly(registration: Registration, this: Attempt) -> Result:
    context = _context(registration, this)
    try:
        if this.around is None:
            _call(registration, this.event, context)
        else:
            with this.around(registration):
                _call(registration, this.event, context)
    except BaseException as error:  # a handler may raise anything, and the event must not be lost
        return judge(error, registration, context, this.age())
    return None


def _call(registration: Registration, event: Event, context: Context) -> None:
    result = registration.run(event, context)
    # A decorator or a factory may hide an async handler behind a plain function.
    if result is not None and inspect.isawaitable(result):
        drive(_within(result, registration.timeout))


# Several handlers, or async ones, on a loop.


def _run_on_own_loop(
    waiting: Sequence[Registration], this: Attempt, results: dict[str, Result]
) -> None:
    try:
        drive(_run_all(waiting, this, threads(THREADS, os.getpid()), results))
    # Handlers' own failures are in `results`: this is the soft time limit's signal, which struck
    # between two steps of the loop. Whoever had not ended by then has failed.
    except Exception as error:
        for each in waiting:
            if each.name not in results:
                results[each.name] = judge(error, each, _context(each, this), this.age())


async def _run_all(
    waiting: Sequence[Registration],
    this: Attempt,
    executor: Executor,
    results: dict[str, Result],
) -> None:
    """Run all at once; each result is in `results` as soon as it is known."""

    async def run_one(registration: Registration) -> None:
        results[registration.name] = await _run_one(registration, this, executor)

    if len(waiting) == 1:
        await run_one(waiting[0])
    else:
        await asyncio.gather(*(run_one(each) for each in waiting))


async def _run_one(registration: Registration, this: Attempt, executor: Executor) -> Result:
    context = _context(registration, this)
    try:
        if this.around is None:
            await _await(registration, this.event, context, executor)
        else:
            with this.around(registration):
                await _await(registration, this.event, context, executor)
    except GeneratorExit:
        raise
    except BaseException as error:  # a handler may raise anything, and the event must not be lost
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            raise
        return judge(error, registration, context, this.age())
    return None


async def _await(
    registration: Registration, event: Event, context: Context, executor: Executor
) -> None:
    if registration.is_async:
        result = registration.run(event, context)
    else:
        in_context = contextvars.copy_context().run
        loop = asyncio.get_running_loop()
        result, error = await loop.run_in_executor(
            executor, in_context, _catch, registration.run, event, context
        )
        if error is not None:
            raise error
    if result is not None and inspect.isawaitable(result):
        await _within(result, registration.timeout)


def _catch(
    run: Callable[[Event, Context], Any], event: Event, context: Context
) -> tuple[Any, BaseException | None]:
    try:
        return run(event, context), None
    # As a value, because a future that is given a StopIteration never ends.
    except BaseException as error:
        return None, error


async def _within(awaitable: Awaitable[Any], timeout: float) -> None:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await awaitable
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(f"still running after {timeout:g} s; raise its timeout") from error
        raise


def _is_being_cancelled() -> bool:
    """Whether somebody cancelled this task, rather than the handler an await of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _context(registration: Registration, this: Attempt) -> Context:
    return Context(
        this.number,
        registration.max_attempts,
        time.monotonic() + registration.timeout,
        this.event.id,
        this.event.type,
        registration.name,
    )
