"""Tells monitors like Flower how the events of a request fared, instead of that its task returned.

Monitors know one name per request; of a batch, that of its first event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flybridge.workers.claim.outcomes import Outcome

ENDINGS = frozenset({"task-succeeded", "task-failed", "task-rejected", "task-retried"})
"""Celery's events that say how a request has ended; it would send them for the task's own end."""


def are_told(dispatcher: Any) -> bool:
    """Whether somebody asked for events of tasks: `-E`, or `celery control enable_events`.

    Args:
        dispatcher: Celery's of a consumer; None while it has none.
    """
    if dispatcher is None or not dispatcher.enabled:
        return False
    return not dispatcher.groups or "task" in dispatcher.groups


def ending(outcomes: Sequence[Outcome], seconds: float) -> tuple[str, dict[str, Any]]:
    """The event that tells of these outcomes, and its fields; the worst one speaks for all."""
    dead = [each.failed[0] for each in outcomes if each.verdict == "dead"]
    if dead:
        told = f"{dead[0].reason}: {dead[0].error}"
        return "task-failed", {"exception": told, "traceback": ""}
    again = [each for each in outcomes if each.verdict == "retry"]
    if again:
        return "task-retried", {"exception": again[0].error, "traceback": ""}
    if any(each.returned for each in outcomes):
        return "task-rejected", {"requeue": True}
    return "task-succeeded", {"result": "done", "runtime": seconds}
