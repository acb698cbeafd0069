"""The outcomes of a request whose process is killed: a handler that had ended keeps its result.

Only the handlers that were running have failed; each is given up after as many attempts as it may
have.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from flybridge.handlers.registry import Registration
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.run.failures import Again, crash_delay
from flybridge.workers.run.runner import Case, Cases, Result
from flybridge.workers.run.watch import Call

NOT_BEGUN = Outcome(retry_after=0.0, returned=True)
"""The outcome of an event that no handler was called for."""


def outcomes(cases: Cases, calls: Collection[Call], error: str) -> list[Outcome]:
    """The outcomes of the events that were begun, in their order.

    Args:
        cases: of the events of the request that were begun.
        calls: the handlers that run now.
        error: why these have failed.
    """
    # A copy, for what runs may end at any moment.
    return [
        case if isinstance(case, Outcome) else _outcome(case, calls, error) for case in list(cases)
    ]


def _outcome(case: Case, calls: Collection[Call], error: str) -> Outcome:
    results = dict(case.results)
    left = [each for each in case.waiting if each.name not in results]
    if not left:
        return case.outcome(results)
    running = {each.name: call for each in left if (call := _call(each, case, calls))}
    if not running and not any(result is None for result in results.values()):
        return NOT_BEGUN
    for each in left:
        results[each.name] = _cut_short(each, case, running.get(each.name), error)
    return replace(case.outcome(results), crashed=True)


def _call(registration: Registration, case: Case, calls: Collection[Call]) -> Call | None:
    event = case.attempt.event
    for call in calls:
        mine = call.registration.name == registration.name
        if mine and any(each is event for each in _events(call)):
            return call
    return None


def _events(call: Call) -> Sequence[object]:
    return call.given if isinstance(call.given, list) else (call.given,)


def _cut_short(registration: Registration, case: Case, call: Call | None, error: str) -> Result:
    """The result of a handler that has none; None for `call`: it had not begun."""
    number = case.attempt.number_of(registration.name)
    # Which event of a batch is guilty is unknown, so each gets another attempt, alone.
    alone = call is not None and len(_events(call)) == 1
    if alone and number >= registration.max_attempts:
        return Failure(registration.name, "crash_loop", error)
    return Again(crash_delay(number), error)
