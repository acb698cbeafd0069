"""Runs the handlers of one event and says how they ended.

A `def` handler that runs alone, the common case, is called directly. Everything else goes through
an event loop: the thread's own in `run_waiting`, the running one in `await_waiting`. `def` handlers
that run beside others do so in threads. Nothing stops a `def` handler from outside but the soft
time limit, an exception that a signal raises in the main thread; so a run ends when all that it has
started has ended, however long that takes.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import cache, partial

from msgspec import Struct

# Its import takes so long that it would hold up the first event, and with it a shared event loop.
import flybridge.handlers.payloads  # noqa: F401
from flybridge.bridge.process.boottime import boottime
from flybridge.handlers.base import Context
from flybridge.handlers.calling.threads import HandlerThreads
from flybridge.handlers.errors import EventInvalid
from flybridge.handlers.event import Event
from flybridge.handlers.policy import is_too_old, too_old_text
from flybridge.handlers.registry import Registration, Registry
from flybridge.workers.claim.outcomes import Failure, Later, Outcome
from flybridge.workers.claim.tries import NO_TRIES, Try
from flybridge.workers.run import calls
from flybridge.workers.run.calls import Around
from flybridge.workers.run.failures import Again, describe, judge
from flybridge.workers.run.items import Item
from flybridge.workers.run.loops import drive, threads_of
from flybridge.workers.run.reruns import Reruns

Trace = Callable[[Sequence[Item]], Around | None]
"""Gives what wraps a handler of these events in a span; None where nothing is traced."""

Result = Failure | Again | None
"""Of one handler; None for success."""

Results = MutableMapping[str, Result]
"""By the names of handlers, each there as soon as it is known."""

Cases = list["Case | Outcome"]
"""Of the events that a request has come to so far, in order; an outcome for what is no event."""


class Attempt(Struct, frozen=True):
    """One attempt at an event: what all of its handlers have in common."""

    event: Event
    number: int
    around: Around | None
    born: float | None
    """Seconds of `boottime` from which the event's age counts; None: nobody knows."""
    parallel: bool = True
    """Handlers run at once; else each begins when the one before has ended."""
    threads: HandlerThreads | None = None
    """For `def` handlers on a running loop; None: the threads of this process."""
    tries: Mapping[str, Try] = NO_TRIES
    """Handlers that want another attempt on their own time."""
    reruns: dict[str, int] = {}
    """Handler -> how often it was called again within this attempt."""

    def age(self) -> float:
        """Seconds; 0 when the clock of who stamped the event is ahead of Redis'."""
        return 0.0 if self.born is None else max(0.0, boottime() - self.born)

    def number_of(self, handler: str) -> int:
        """Which attempt of a handler its next call is, or the one that runs."""
        if not (self.tries or self.reruns):
            return self.number
        tried = self.tries.get(handler)
        # Others of the event have tries of their own, and this one has none: it is new.
        first = tried.made + 1 if tried else 1 if self.tries else self.number
        return first + self.reruns.get(handler, 0)

    def context(self, registration: Registration) -> Context:
        """The context of a call that begins now."""
        return Context(
            self.number_of(registration.name),
            registration.max_attempts,
            time.monotonic() + registration.timeout,
            self.event.id,
            self.event.type,
            registration.name,
        )

    def judge(
        self, error: BaseException, registration: Registration, *, with_traceback: bool = True
    ) -> Failure | Again:
        """The consequence of a handler's failure; see `failures.judge`."""
        context = self.context(registration)
        return judge(error, registration, context, self.age(), with_traceback=with_traceback)


class Case(Struct, frozen=True):
    """One event on its way through its handlers."""

    attempt: Attempt
    waiting: tuple[Registration, ...]
    """The handlers that no earlier attempt has finished or given up."""
    marks: Mapping[str, str]
    results: dict[str, Result]
    asleep: tuple[str, ...] = ()
    """Handlers that want another attempt and are not due."""
    shared: bool = False
    """Several handlers share the event, so each has its own attempts and retries."""

    def left(self) -> Sequence[Registration]:
        """Those that have no result yet."""
        if not self.results:
            return self.waiting
        return [each for each in self.waiting if each.name not in self.results]

    def outcome(self, results: Mapping[str, Result] | None = None) -> Outcome:
        """The outcome, when all handlers that were called have a result.

        Args:
            results: instead of its own.
        """
        results = self.results if results is None else results
        if not (self.marks or self.asleep or any(results.values())):
            return _all_finished(tuple(each.name for each in self.waiting))
        in_order = [(each.name, results[each.name]) for each in self.waiting]
        finished = tuple(name for name, result in in_order if result is None)
        given_up = (result for _, result in in_order if isinstance(result, Failure))
        failed = (*_given_up(self.marks), *given_up)
        again = {name: result for name, result in in_order if isinstance(result, Again)}
        if not (again or self.asleep):
            return Outcome(finished, failed)
        error = next((each.error for each in again.values()), "")
        after = min(*(each.after for each in again.values()), self._wakes(), math.inf)
        number_of = self.attempt.number_of
        later = [Later(name, number_of(name), each.after) for name, each in again.items()]
        return Outcome(finished, failed, after, error, tuple(later) if self.shared else ())

    def _wakes(self) -> float:
        """Seconds until the first handler that was not due becomes due."""
        due = min((self.attempt.tries[name].due for name in self.asleep), default=math.inf)
        return max(0.0, due - time.monotonic())


def run(
    registry: Registry,
    item: Item,
    trace: Trace,
    *,
    parallel: bool = True,
    cases: Cases | None = None,
) -> Outcome:
    """Run the handlers of an event that have no mark; for processes, threads and solo.

    Args:
        parallel: several handlers at once; else in the order of their registration, each when the
            one before has ended, however that was.
        cases: where to note the event, for who asks meanwhile how far it has come.

    Returns:
        How it ended; a failing handler raises nothing.

    Raises:
        KeyboardInterrupt, SystemExit: a signal told the process to end.
    """
    case = case_of(registry, item, trace, parallel=parallel)
    if cases is not None:
        cases.append(case)
    if isinstance(case, Outcome):
        return case
    run_waiting(case)
    return case.outcome()


def case_of(
    registry: Registry,
    item: Item,
    trace: Trace,
    *,
    parallel: bool = True,
    threads: HandlerThreads | None = None,
) -> Case | Outcome:
    """An event ready for its handlers; its outcome if it cannot be read, or has none here."""
    try:
        event = Event.from_json(item.envelope, item.event_id)
    except EventInvalid as error:
        return Outcome(failed=(Failure("", "decode", describe(error)),))
    registrations = registry.lookup(event.type)
    if registrations[0].stands_for_none:
        return Outcome.unhandled(event.type, item.event_type)
    # Of those that take batches the batch has a span.
    around = trace([item]) if any(not each.batch for each in registrations) else None
    this = Attempt(event, item.attempt, around, item.born, parallel, threads, item.tries)
    unmarked = registrations
    if item.marks:
        unmarked = tuple(each for each in registrations if each.name not in item.marks)
    waiting, asleep = _awake(unmarked, item.tries) if item.tries else (unmarked, ())
    shared = len(registrations) > 1
    return Case(this, waiting, item.marks, _too_old(waiting, this), asleep, shared)


def _awake(
    registrations: tuple[Registration, ...], tries: Mapping[str, Try]
) -> tuple[tuple[Registration, ...], tuple[str, ...]]:
    """The handlers that may be called now, and the names of the others."""
    now = time.monotonic()
    asleep = tuple(
        each.name for each in registrations if each.name in tries and tries[each.name].due > now
    )
    return tuple(each for each in registrations if each.name not in asleep), asleep


def _too_old(waiting: Sequence[Registration], this: Attempt) -> dict[str, Result]:
    """The failures of handlers for which the event is too old."""
    limited = [each for each in waiting if each.max_age is not None]
    age = this.age() if limited else 0.0
    return {
        each.name: Failure(each.name, "age", too_old_text(each, age))
        for each in limited
        if is_too_old(each, age)
    }


@cache
def _all_finished(names: tuple[str, ...]) -> Outcome:
    # One object for all: a child sends it to its parent once, and then only says "the same".
    return Outcome(names)


def _given_up(marks: Mapping[str, str]) -> Iterable[Failure]:
    for handler, mark in marks.items():
        if mark:
            reason, _, error = mark.partition("\n")
            yield Failure(handler, reason, error)


def run_waiting(case: Case) -> None:
    """Run those that have no result yet, and add theirs."""
    left, this, results = case.left(), case.attempt, case.results
    if this.parallel and len(left) > 1:
        _run_on_own_loop(left, this, results)
        return
    for each in left:
        if each.is_async:
            _run_on_own_loop([each], this, results)
        else:
            results[each.name] = _run_directly(each, this)


async def await_waiting(case: Case) -> None:
    """The same on the running event loop."""
    this = case.attempt
    threads = this.threads or threads_of(os.getpid())
    await _run_all(case.left(), this, threads, case.results)


def _run_directly(registration: Registration, this: Attempt) -> Result:
    try:
        calls.directly(registration, this.event, this.context(registration), this.around)
    except BaseException as error:  # a handler may raise anything, and the event must not be lost
        return this.judge(error, registration)
    return None


def _run_on_own_loop(waiting: Sequence[Registration], this: Attempt, results: Results) -> None:
    try:
        drive(_run_all(waiting, this, threads_of(os.getpid()), results))
    # Handlers' own failures are in `results`. This is the soft time limit's signal, between two
    # steps of the loop, or an exit in a task that a handler started, which stops the loop. Every
    # handler that had not ended by then has failed.
    except BaseException as error:
        for each in waiting:
            if each.name not in results:
                results[each.name] = this.judge(error, each)


async def _run_all(
    waiting: Sequence[Registration], this: Attempt, threads: HandlerThreads, results: Results
) -> None:
    async def run_one(registration: Registration) -> Result:
        succeeded = partial(results.__setitem__, registration.name, None)
        result = await _run_one(registration, this, threads, succeeded)
        results[registration.name] = result
        return result

    if not this.parallel or len(waiting) < 2:
        for each in waiting:
            await run_one(each)
        return

    longest = max(each.timeout for each in waiting)
    reruns = Reruns(len(waiting), time.monotonic() + longest)

    async def run_until_done(registration: Registration) -> None:
        name = registration.name
        while True:
            try:
                result = await run_one(registration)
            finally:
                reruns.ended()
            if not isinstance(result, Again):
                return
            due = time.monotonic() + result.after
            if not await reruns.is_due(due):
                results[name] = replace(result, after=max(0.0, due - time.monotonic()))
                return
            del results[name]
            this.reruns[name] = this.reruns.get(name, 0) + 1

    # Threads first, for a coroutine may block the loop.
    in_turn = sorted(waiting, key=lambda each: each.is_async)
    await asyncio.gather(*(run_until_done(each) for each in in_turn))


async def _run_one(
    registration: Registration,
    this: Attempt,
    threads: HandlerThreads,
    succeeded: Callable[[], None],
) -> Result:
    context = this.context(registration)
    try:
        await calls.on_loop(registration, this.event, context, this.around, threads, succeeded)
    except GeneratorExit:
        raise
    except BaseException as error:  # a handler may raise anything, and the event must not be lost
        if isinstance(error, asyncio.CancelledError) and calls.is_being_cancelled():
            raise
        return this.judge(error, registration)
    return None
