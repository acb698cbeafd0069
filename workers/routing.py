"""Event type -> task name -> queue, the last through Celery's own `task_routes`. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.streams import EVERYTHING
from handlers.errors import RegistrationInvalid
from handlers.options import per_second
from handlers.registry import Registration, Registry
from handlers.types import KNOWN_TYPES, domain

PREFIX = "feishu."
"""Task names are this and the event type."""

OTHER = PREFIX + "other"
"""The task of every type that no task bears the name of."""

MARGIN = 5.0
"""Seconds that a coroutine's own timeout comes before the soft time limit; both at once race."""

GRACE = 10.0
"""Seconds between the soft time limit, which a handler may catch, and the hard one, which kills."""


@dataclass(frozen=True, slots=True)
class Route:
    """What Celery is told of one task."""

    task: str
    queue: str
    max_attempts: int
    soft_time_limit: float
    time_limit: float
    rate_limit: str | float | None
    concurrency: int | None


@dataclass(frozen=True, slots=True)
class Routing:
    """The routes of one worker, made once from the registry."""

    routes: Mapping[str, Route]

    @classmethod
    def of(cls, registry: Registry) -> Routing:
        """Routes for every type with handlers of its own, and one for the rest.

        Raises:
            RegistrationInvalid: handlers of one type name different queues.
        """
        types = set(registry.event_types()) | {
            known for known in KNOWN_TYPES if registry.is_registered(known)
        }
        routes = [_route(event_type, registry.lookup(event_type)) for event_type in sorted(types)]
        routes.append(_route("", _of_other_types(registry)))
        return cls({route.task: route for route in routes})

    def task_of(self, event_type: str) -> str:
        """The name of the task that takes events of this type."""
        name = PREFIX + event_type
        return name if name in self.routes else OTHER

    def queue_of(self, event_type: str) -> str:
        """The Celery queue whose workers read the stream of this type."""
        route = self.routes.get(PREFIX + event_type)
        return route.queue if route else domain(event_type)

    def covered(self, queues: Collection[str]) -> frozenset[str]:
        """What workers of these queues read, in the words of `bridge.streams.subscriber`."""
        if set(self.queues()) <= set(queues):
            return frozenset({EVERYTHING})
        own = {route.task for route in self.routes.values() if route.queue in queues} - {OTHER}
        types = {f"type:{task.removeprefix(PREFIX)}" for task in own}
        return frozenset(types | {f"queue:{queue}" for queue in queues})

    def queues(self) -> tuple[str, ...]:
        """Every queue there is, for `task_queues`."""
        names = {route.queue for route in self.routes.values()}
        return tuple(sorted(names | {domain(known) for known in KNOWN_TYPES} | {"default"}))

    def __call__(self, name: str, *_: Any, **__: Any) -> dict[str, str] | None:
        """Celery's router: the queue of a task, None for a task of the user's own."""
        route = self.routes.get(name)
        return {"queue": route.queue} if route else None


def _of_other_types(registry: Registry) -> tuple[Registration, ...]:
    """Whose handlers may get an event of a type that nobody knows today."""
    by_pattern = [each for each in registry.list() if any("*" in name for name in each.patterns)]
    return (*by_pattern, registry.default)


def _route(event_type: str, registrations: tuple[Registration, ...]) -> Route:
    queues = {each.queue for each in registrations if each.queue} if event_type else set()
    if len(queues) > 1:
        raise RegistrationInvalid(
            f"the handlers of {event_type} name different queues ({', '.join(sorted(queues))});"
            " give them the same queue, or none"
        )
    # A coroutine is stopped by its own timeout; the signal is for `def` handlers, and a net below.
    limit = max(each.timeout + MARGIN * each.is_async for each in registrations)
    rates = [each.rate_limit for each in registrations if each.rate_limit is not None]
    return Route(
        task=PREFIX + event_type if event_type else OTHER,
        queue=queues.pop() if queues else domain(event_type),
        max_attempts=max(each.max_attempts for each in registrations),
        soft_time_limit=limit,
        time_limit=limit + GRACE,
        rate_limit=min(rates, key=per_second, default=None),
        concurrency=min(
            (each.concurrency for each in registrations if each.concurrency), default=None
        ),
    )
