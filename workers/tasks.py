"""One Celery task per event type: it runs the handlers of one event and returns the outcome.

It neither claims nor settles; the main process does, so that a pool child needs no Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery

from handlers.registry import Registry
from workers import runner
from workers.outcomes import Outcome
from workers.requests import EventTask
from workers.routing import OTHER, PREFIX, Route, Routing
from workers.spans import handler_spans

Marks = Mapping[str, str]


def register(app: Celery, routing: Routing, registry: Registry) -> None:
    """Make the tasks of all routes known to the app."""

    def process(event_id: str, envelope: bytes, attempt: int, marks: Marks, *trace: str) -> Outcome:
        around = handler_spans(*trace)
        return runner.run(registry, envelope, attempt, marks, event_id=event_id, around=around)

    async def process_async(
        event_id: str, envelope: bytes, attempt: int, marks: Marks, *trace: str
    ) -> Outcome:
        around = handler_spans(*trace)
        return await runner.run_async(
            registry, envelope, attempt, marks, event_id=event_id, around=around
        )

    for route in routing.routes.values():
        app.task(process, **_options(route), run_async=staticmethod(process_async))


def _options(route: Route) -> dict[str, Any]:
    return {
        "name": route.task,
        "base": EventTask,
        "event_type": "" if route.task == OTHER else route.task.removeprefix(PREFIX),
        "max_attempts": route.max_attempts,
        "soft_time_limit": route.soft_time_limit,
        "time_limit": route.time_limit,
        "serializer": "json",
    }
