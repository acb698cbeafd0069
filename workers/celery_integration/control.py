"""Celery control commands that show, register and unregister handlers of a running worker.

`celery inspect handlers`, `celery control register_handlers MODULE`, `celery control
unregister_handler NAME`; `flybridge handlers` uses the same ones. `changes.py` makes the changes.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any

from celery.worker.control import control_command, inspect_command

from flybridge.bridge.telemetry.redaction import redact
from flybridge.handlers.errors import HandlerError
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registry import Registration, registry
from flybridge.workers.celery_integration import tasks
from flybridge.workers.celery_integration.changes import Change, Changes
from flybridge.workers.routes.routing import Routing

log = get_logger(__name__)

LIST, REGISTER, UNREGISTER = "handlers", "register_handlers", "unregister_handler"

_NOT_SHOWN = frozenset({"run", "is_async", "stands_for_none"})


def prepare(app: Any, routing: Routing, *, parallel: bool) -> None:
    """Give an app its `changes`; importing this module made the commands known to Celery.

    Args:
        app: with `task_queues` and the tasks of all routes.
    """

    def adopt(new: Routing) -> None:
        # The tasks come first, or an event could meet a route without one.
        tasks.renew(app, routing.routes, new, registry, parallel=parallel)
        routing.adopt(new)

    app.changes = Changes(
        adopt, lambda: [queue.name for queue in app.conf.task_queues], parallel=parallel
    )


@inspect_command(name=LIST)
def list_handlers(state: Any) -> dict[str, Any]:
    """The handlers in order, the default last: patterns, options, where they are."""
    return {
        "revision": state.app.changes.made.revision,
        "handlers": [
            *(_shown(each) for each in registry.list()),
            {**_shown(registry.default), "default": True},
        ],
    }


@control_command(name=REGISTER, args=[("module", str)], signature="MODULE")
def register_handlers(state: Any, module: str, who: str = "") -> dict[str, Any]:
    """Import a module with handlers, or give back what was unregistered of it."""
    return _make(state, Change("register", module), who)


@control_command(name=UNREGISTER, args=[("name", str)], signature="NAME")
def unregister_handler(state: Any, name: str, who: str = "") -> dict[str, Any]:
    """Stop running a handler; events that run already are not disturbed."""
    return _make(state, Change("unregister", name), who)


def _make(state: Any, change: Change, who: str) -> dict[str, Any]:
    app = state.app
    rates = {name: task.rate_limit for name, task in app.tasks.items()}
    try:
        names = app.changes.make(change)
    except HandlerError as error:
        log.warning("change.refused", action=change.action, what=change.what, who=who,
                    error=str(error))  # fmt: skip
        return {"error": redact(str(error))}
    app.changes.behind = set(_children(state.consumer.pool))
    _tell(state.consumer, rates)
    revision = app.changes.made.revision
    log.info("handlers.changed", action=change.action, what=change.what, who=who,
             handlers=" ".join(names), revision=revision)  # fmt: skip
    return {"ok": {"handlers": list(names), "revision": revision}}


def _children(pool: Any) -> Collection[int]:
    """Pids of a pool's processes; none where it has none of its own."""
    return {pid for pid in pool.info.get("processes", ()) if pid != os.getpid()}


def _tell(consumer: Any, rates: dict[str, Any]) -> None:
    """Tell Celery's consumer of the new tasks; buckets whose rate is the same keep their tokens."""
    consumer.update_strategies()
    for name, task in consumer.app.tasks.items():
        if rates.get(name) != task.rate_limit:
            consumer.task_buckets[name] = consumer.bucket_for_task(task)


def _shown(registration: Registration) -> dict[str, Any]:
    names = (field.name for field in fields(registration) if field.name not in _NOT_SHOWN)
    shown = {name: getattr(registration, name) for name in names}
    return {**shown, "batch": asdict(registration.batch) if registration.batch else None}
