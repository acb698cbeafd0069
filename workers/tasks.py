"""One Celery task per event type: it runs the handlers of events and returns their outcomes.

It neither claims nor settles; the main process does, so that a pool child needs no Redis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from celery import Celery

from handlers.registry import Registry
from workers import runner
from workers.bundles import SPAN
from workers.outcomes import Outcome
from workers.requests import EventTask, Item
from workers.routing import OTHER, PREFIX, Route, Routing
from workers.spans import handler_spans

Results = tuple[Sequence[Outcome], float]
"""The outcomes in the order of the items, and the seconds of the longest run. Items beyond the
outcomes have not begun."""


def register(app: Celery, routing: Routing, registry: Registry) -> None:
    """Make the tasks of all routes known to the app."""

    def process(items: Sequence[Item]) -> Results:
        outcomes, longest = [], 0.0
        for event_id, envelope, attempt, marks, since, *trace in items:
            started = time.perf_counter()
            around = handler_spans(*trace)
            outcome = runner.run(
                registry, envelope, attempt, marks, event_id=event_id, since=since, around=around
            )
            outcomes.append(outcome)
            longest = max(longest, time.perf_counter() - started)
            # The others would wait for more slow ones, and the time limit is that of one event.
            if longest > SPAN:
                break
        return outcomes, longest

    async def process_async(items: Sequence[Item]) -> Results:
        # One only: the asyncio pool gains nothing by bundles.
        ((event_id, envelope, attempt, marks, since, *trace),) = items
        around = handler_spans(*trace)
        outcome = await runner.run_async(
            registry, envelope, attempt, marks, event_id=event_id, since=since, around=around
        )
        return [outcome], 0.0

    for route in routing.routes.values():
        app.task(process, **_options(route), run_async=staticmethod(process_async))


def _options(route: Route) -> dict[str, Any]:
    return {
        "name": route.task,
        "base": EventTask,
        # Celery would give it to every other app of the process.
        "shared": False,
        "event_type": "" if route.task == OTHER else route.task.removeprefix(PREFIX),
        "max_attempts": route.max_attempts,
        "soft_time_limit": route.soft_time_limit,
        "time_limit": route.time_limit,
        "rate_limit": route.rate_limit,
        "serializer": "json",
    }
