"""One Celery task per event type: it runs the handlers of events and returns their outcomes.

The main process claims and settles, so a pool child needs no Redis.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend

from flybridge.handlers.registry import Registry
from flybridge.workers.celery_integration import child
from flybridge.workers.celery_integration.requests import EventTask
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.dispatch.bundles import BUNDLE_SECONDS
from flybridge.workers.routes.routing import OTHER, PREFIX, Route, Routing
from flybridge.workers.run import batch_runner, runner
from flybridge.workers.run.handler_spans import handler_spans
from flybridge.workers.run.items import Item
from flybridge.workers.run.runner import Cases

_LIVE = frozenset({"max_attempts", "soft_time_limit", "time_limit", "rate_limit"})
"""The options of a task that may change."""

Results = tuple[Sequence[Outcome], float]
"""The outcomes in the order of the items, and the seconds of the longest run. Items beyond the
outcomes have not begun."""


def register(app: Celery, routing: Routing, registry: Registry, *, parallel: bool = True) -> None:
    """Make the tasks of all routes known to the app."""

    def process(items: Sequence[Item]) -> Results:
        this = child.here()
        cases: Cases = this.cases if this is not None else []
        if batch_runner.takes_batches(registry, items):
            outcomes = batch_runner.run(
                registry, items, handler_spans, parallel=parallel, cases=cases
            )
            return outcomes, 0.0
        return _run_bundle(registry, items, cases, parallel=parallel)

    async def process_async(items: Sequence[Item]) -> Results:
        outcomes = await batch_runner.run_async(registry, items, handler_spans, parallel=parallel)
        return outcomes, 0.0

    # Whatever backend the app has for users' tasks: the result of an event is not stored.
    backend = DisabledBackend(app=app)
    for route in routing.routes.values():
        app.task(process, **_options(route), run_async=staticmethod(process_async), backend=backend)


def _run_bundle(
    registry: Registry, items: Sequence[Item], cases: Cases, *, parallel: bool
) -> Results:
    """Run one event after the other, as long as they are quick."""
    outcomes, longest = [], 0.0
    for item in items:
        started = time.perf_counter()
        outcome = runner.run(registry, item, handler_spans, parallel=parallel, cases=cases)
        outcomes.append(outcome)
        longest = max(longest, time.perf_counter() - started)
        # The others would wait for slow ones, and the time limit is that of one event.
        if longest > BUNDLE_SECONDS:
            break
    return outcomes, longest


def renew(
    app: Celery,
    before: Mapping[str, Route],
    routing: Routing,
    registry: Registry,
    *,
    parallel: bool,
) -> None:
    """Make the tasks of new and changed routes known; other tasks stay, for what is under way."""
    changed = {name: route for name, route in routing.routes.items() if before.get(name) != route}
    known = [name for name in changed if name in app.tasks]
    new = Routing({name: route for name, route in changed.items() if name not in known})
    register(app, new, registry, parallel=parallel)
    for name in known:
        options, old = _options(changed[name]), before.get(name)
        # An operator may have set another rate meanwhile.
        if old is not None and old.rate_limit == changed[name].rate_limit:
            del options["rate_limit"]
        # Changed in place, so that a thread of the pool always finds the task.
        for option in _LIVE & options.keys():
            setattr(app.tasks[name], option, options[option])


class UsersTasks:
    """Whether an app has tasks that come by messages of the broker: neither ours nor Celery's."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._seen = 0
        self._any = False

    def __call__(self) -> bool:
        tasks = self._app.tasks
        # Asked at each turn of the worker's loop.
        if len(tasks) != self._seen:
            self._seen = len(tasks)
            self._any = any(
                not isinstance(task, EventTask) and not name.startswith("celery.")
                for name, task in list(tasks.items())
            )
        return self._any

    __json__ = __call__
    """What kombu sends of it, in answers to `inspect stats`."""


def _options(route: Route) -> dict[str, Any]:
    return {
        "name": route.task,
        "base": EventTask,
        # Celery would give it to every other app of the process; the second one, where a variable
        # (FORKED_BY_MULTIPROCESSING) tells it that another Celery program has started this one.
        "shared": False,
        "lazy": False,
        "event_type": "" if route.task == OTHER else route.task.removeprefix(PREFIX),
        "max_attempts": route.max_attempts,
        "soft_time_limit": route.soft_time_limit,
        "time_limit": route.time_limit,
        "rate_limit": route.rate_limit,
        "serializer": "json",
    }
