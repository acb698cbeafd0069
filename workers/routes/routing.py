"""Event type -> task name -> queue; Celery uses it as a router of `task_routes`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from flybridge.bridge.store.streams import EVERYTHING
from flybridge.handlers.batch import Batch
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registering.options import per_second
from flybridge.handlers.registry import Registration, Registry
from flybridge.handlers.types import KNOWN_TYPES, domain
from flybridge.workers.routes.ordering import paths_of

PREFIX = "feishu."
"""Task names are this and the event type."""

OTHER = PREFIX + "other"
"""The task of every type that no task bears the name of."""

COROUTINE_MARGIN = 5.0
"""Seconds that a coroutine's own timeout comes before the soft time limit; both at once race."""

INTERRUPT_GRACE = 10.0
"""Seconds from the interruption of a handler, which it may catch, to the end of its process."""

HARD_LIMIT_MARGIN = 3.0
"""Seconds more until Celery ends a process that could not end itself."""


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
    ordered_by: str | None = None
    """The path that orders all its events; None where they are of several types."""
    batch: Batch | None = None
    """How many of its events go together; None: handlers take one at a time."""


@dataclass(slots=True)
class Routing:
    """The routes of one worker, as the registry was when they were last made."""

    routes: Mapping[str, Route]
    """Replaced as a whole; take it once for several routes that fit together."""

    @classmethod
    def of(cls, registry: Registry, *, parallel: bool = True) -> Routing:
        """Routes for every type with handlers of its own, and one for the rest.

        Args:
            parallel: whether several handlers of an event run at once; see `runner.run`.

        Raises:
            RegistrationInvalid: handlers of one type name different queues, or different keys to
                be ordered by.
        """
        types = set(registry.event_types()) | {
            known for known in KNOWN_TYPES if registry.is_registered(known)
        }
        handlers = {event_type: registry.lookup(event_type) for event_type in sorted(types)}
        handlers[""] = _of_other_types(registry)
        routes = [_route(name, found, parallel=parallel) for name, found in handlers.items()]
        return cls({route.task: route for route in routes})

    def adopt(self, other: Routing) -> None:
        """Route as `other` does from now on; callable from any thread."""
        self.routes = other.routes

    def task_of(self, event_type: str) -> str:
        """The name of the task that takes events of this type."""
        name = PREFIX + event_type
        return name if name in self.routes else OTHER

    def max_attempts_of(self, task: str) -> int:
        """The attempts of a task; of `OTHER` if it has lost its handlers meanwhile."""
        routes = self.routes
        return routes.get(task, routes[OTHER]).max_attempts

    def concurrency_of(self, task: str) -> int | None:
        """How many of a task's events may run at once; None for no limit."""
        route = self.routes.get(task)
        return route.concurrency if route else None

    def batch_of(self, task: str) -> Batch | None:
        """How a task's events go together; None: one at a time."""
        route = self.routes.get(task)
        return route.batch if route else None

    def types(self) -> set[str]:
        """The event types with a task of their own."""
        return {task.removeprefix(PREFIX) for task in self.routes} - {OTHER.removeprefix(PREFIX)}

    def moved(self) -> dict[str, str]:
        """Event type -> queue, where a handler names another than the type's domain."""
        routes = {name: self.routes[PREFIX + name].queue for name in self.types()}
        return {name: queue for name, queue in routes.items() if queue != domain(name)}

    def queue_of(self, event_type: str) -> str:
        """The Celery queue whose workers read the stream of this type."""
        route = self.routes.get(PREFIX + event_type)
        return route.queue if route else domain(event_type)

    def covered(self, queues: Collection[str]) -> frozenset[str]:
        """What workers of these queues read, in the words of
        `flybridge.bridge.store.streams.subscriber`."""
        routes = self.routes
        if set(Routing(routes).queues()) <= set(queues):
            return frozenset({EVERYTHING})
        own = {route.task for route in routes.values() if route.queue in queues} - {OTHER}
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
    """The handlers that may get an event of a type that is not known today."""
    by_pattern = [each for each in registry.list() if any("*" in name for name in each.patterns)]
    return (*by_pattern, registry.default)


def _route(event_type: str, registrations: tuple[Registration, ...], *, parallel: bool) -> Route:
    queues = {each.queue for each in registrations if each.queue} if event_type else set()
    if len(queues) > 1:
        raise RegistrationInvalid(
            f"the handlers of {event_type} name different queues ({', '.join(sorted(queues))});"
            " give them the same queue, or none"
        )
    paths = paths_of(registrations) if event_type else ()
    if len(paths) > 1:
        raise RegistrationInvalid(
            f"the handlers of {event_type} are ordered_by different keys ({', '.join(paths)});"
            " give them the same, or none: a type has one order"
        )
    batch = _batch(registrations)
    if event_type:
        _refuse_unkept_rates(event_type, registrations)
    limit = _time_limit(registrations, batch, parallel=parallel)
    rates = [each.rate_limit for each in registrations if each.rate_limit is not None]
    return Route(
        task=PREFIX + event_type if event_type else OTHER,
        queue=queues.pop() if queues else domain(event_type),
        max_attempts=max(each.max_attempts for each in registrations),
        soft_time_limit=limit,
        time_limit=limit + INTERRUPT_GRACE + HARD_LIMIT_MARGIN,
        rate_limit=min(rates, key=per_second, default=None),
        concurrency=min(
            (each.concurrency for each in registrations if each.concurrency), default=None
        ),
        ordered_by=paths[0] if paths else None,
        batch=batch,
    )


def _refuse_unkept_rates(event_type: str, registrations: tuple[Registration, ...]) -> None:
    """Refuse a rate limit of single events beside batches, whose events begin together."""
    together = [each for each in registrations if each.batch]
    rated = [each for each in registrations if each.rate_limit is not None and not each.batch]
    if together and rated:
        raise RegistrationInvalid(
            f"{rated[0].name} takes single events of {event_type} at a rate_limit, but "
            f"{together[0].name} takes batches of it, whose events begin together; give one of them"
            " a group of its own (FLYBRIDGE_GROUP), or take the rate_limit away"
        )


def _time_limit(
    registrations: tuple[Registration, ...], batch: Batch | None, *, parallel: bool
) -> float:
    """Seconds that one request may take whose handlers all use up their timeouts."""
    singles = [_longest(each) for each in registrations if not each.batch]
    # Beside others, one may be called again until the longest timeout has passed; see `reruns`.
    shared = sum(not (each.batch or each.stands_for_none) for each in registrations) > 1
    again = 2 if shared else 1
    one = again * max(singles, default=0.0) if parallel else sum(singles)
    if batch is None:
        return one
    # Batch handlers are called one after the other, some several times; then, event by event, those
    # of single events.
    calls = [(each, each.batch.size) for each in registrations if each.batch]
    together = sum(_longest(each) * ceil(batch.size / size) for each, size in calls)
    return together + batch.size * one


def _longest(registration: Registration) -> float:
    """Seconds until the signal: for a coroutine it comes later than its own timeout, as a net."""
    return registration.timeout + COROUTINE_MARGIN * registration.is_async


def _batch(registrations: tuple[Registration, ...]) -> Batch | None:
    """The largest that a handler of the type wants, as soon as one wants it."""
    batches = [each.batch for each in registrations if each.batch]
    if not batches:
        return None
    return Batch(max(each.size for each in batches), min(each.wait for each in batches))
