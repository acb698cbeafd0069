"""Runs the handlers of several events, some of which take them together, as a batch.

Each event keeps its own outcome, with its own marks, retries and dead letter. Handlers that take
one event at a time run after the batches.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flybridge.handlers.batch import BatchContext
from flybridge.handlers.calling.threads import HandlerThreads
from flybridge.handlers.event import Event
from flybridge.handlers.policy import batch_results
from flybridge.handlers.registry import Registration, Registry
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.run import calls, runner
from flybridge.workers.run.items import Item
from flybridge.workers.run.loops import threads_of
from flybridge.workers.run.runner import Case, Cases, Trace


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a batch handler."""

    registration: Registration
    items: Sequence[Item]
    cases: Sequence[Case]

    def events(self) -> list[Event]:
        return [case.attempt.event for case in self.cases]

    def context(self) -> BatchContext:
        return BatchContext(
            tuple(case.attempt.number_of(self.registration.name) for case in self.cases),
            self.registration.max_attempts,
            time.monotonic() + self.registration.timeout,
            self.registration.name,
        )

    def returned(self, value: Any) -> None:
        """Note what the handler said of each event."""
        name = self.registration.name
        for case, result in zip(
            self.cases, batch_results(value, len(self.cases), name), strict=True
        ):
            failed = isinstance(result, BaseException)
            case.results[name] = case.attempt.judge(result, self.registration) if failed else None

    def failed(self, error: BaseException) -> None:
        """The handler raised: every event has failed alike."""
        for case in self.cases:
            case.results[self.registration.name] = case.attempt.judge(
                error, self.registration, with_traceback=case is self.cases[0]
            )


def run(
    registry: Registry,
    items: Sequence[Item],
    trace: Trace,
    *,
    parallel: bool = True,
    cases: Cases | None = None,
) -> list[Outcome]:
    """Run the handlers of some events; for processes, threads and solo.

    Args:
        parallel: see `runner.run`; of the handlers that take one event.
        cases: where to note the events, for who asks meanwhile how far they have come.

    Returns:
        The outcomes in the order of the items.

    Raises:
        KeyboardInterrupt, SystemExit: a signal told the process to end.
    """
    cases = [] if cases is None else cases
    cases += [runner.case_of(registry, item, trace, parallel=parallel) for item in items]
    for call in _calls(items, cases):
        _run_call(call, trace)
    for case in _unfinished(cases):
        runner.run_waiting(case)
    return _outcomes(cases)


async def run_async(
    registry: Registry,
    items: Sequence[Item],
    trace: Trace,
    *,
    parallel: bool = True,
    threads: HandlerThreads | None = None,
) -> list[Outcome]:
    """The same on the running event loop, batches of different handlers at once.

    Then the handlers that take one event, for all events at once; for one after the other where a
    handler limits its concurrency.

    Raises:
        asyncio.CancelledError: the caller was cancelled; async handlers were cancelled first.
    """
    cases: Cases = [
        runner.case_of(registry, item, trace, parallel=parallel, threads=threads) for item in items
    ]
    await _at_once([_await_call(call, trace, threads) for call in _calls(items, cases)])
    await _await_singles(list(_unfinished(cases)))
    return _outcomes(cases)


async def _await_singles(cases: Sequence[Case]) -> None:
    if any(each.concurrency for case in cases for each in case.left()):
        # No more batches run at once than the limit says, so one event of each.
        for case in cases:
            await runner.await_waiting(case)
    else:
        await _at_once([runner.await_waiting(case) for case in cases])


def _outcomes(cases: Cases) -> list[Outcome]:
    return [case.outcome() if isinstance(case, Case) else case for case in cases]


async def _at_once(running: Sequence[Coroutine[Any, Any, None]]) -> None:
    if len(running) == 1:  # a task of its own would cost more than many a handler
        await running[0]
    elif running:
        await asyncio.gather(*running)


def takes_batches(registry: Registry, items: Sequence[Item]) -> bool:
    """Whether any handler of these events takes batches."""
    types = {item.event_type for item in items}
    return any(each.batch for name in types for each in registry.lookup(name))


def _calls(items: Sequence[Item], cases: Cases) -> list[_Call]:
    wanted: dict[str, tuple[Registration, list[tuple[Item, Case]]]] = {}
    for item, case in zip(items, cases, strict=True):
        if isinstance(case, Outcome):
            continue
        for each in case.left():
            if each.batch:
                wanted.setdefault(each.name, (each, []))[1].append((item, case))
    return [call for each, members in wanted.values() for call in _split(each, members)]


def _split(registration: Registration, members: list[tuple[Item, Case]]) -> Iterator[_Call]:
    size = registration.batch.size if registration.batch else len(members)
    for start in range(0, len(members), size):
        items, cases = zip(*members[start : start + size], strict=True)
        yield _Call(registration, items, cases)


def _unfinished(cases: Cases) -> Iterator[Case]:
    """Those with handlers that take one event."""
    for case in cases:
        if isinstance(case, Case) and case.left():
            yield case


def _run_call(call: _Call, trace: Trace) -> None:
    around = trace(call.items)
    try:
        value = calls.directly(call.registration, call.events(), call.context(), around)
    except BaseException as error:  # a handler may raise anything, and no event must be lost
        call.failed(error)
    else:
        call.returned(value)


async def _await_call(call: _Call, trace: Trace, threads: HandlerThreads | None) -> None:
    around = trace(call.items)
    threads = threads or threads_of(os.getpid())
    registration, events, context = call.registration, call.events(), call.context()
    try:
        value = await calls.on_loop(
            registration, events, context, around, threads, partial(call.returned, None)
        )
    except GeneratorExit:
        raise
    except BaseException as error:  # a handler may raise anything, and no event must be lost
        if isinstance(error, asyncio.CancelledError) and calls.is_being_cancelled():
            raise
        call.failed(error)
    else:
        call.returned(value)
