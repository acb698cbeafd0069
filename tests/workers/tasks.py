"""Routes and a pool as the events that wait ask them: each task bears the name of its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flybridge.handlers.batch import Batch
from flybridge.workers.backlog.limits import Bucket


class Tasks:
    """Limits, batches and buckets by task, which may change; nothing else is limited."""

    max_attempts = 5

    def __init__(
        self,
        concurrency: Mapping[str, int] | None = None,
        batches: Mapping[str, Batch] | None = None,
        buckets: Mapping[str, Bucket] | None = None,
        *,
        shares_process: bool = False,
    ) -> None:
        self._concurrency, self._batches, self._buckets = concurrency, batches, buckets
        self.shares_process = shares_process

    def task_of(self, event_type: str) -> str:
        return event_type

    def max_attempts_of(self, task: str) -> int:
        return self.max_attempts

    def concurrency_of(self, task: str) -> int | None:
        return (self._concurrency or {}).get(task)

    def batch_of(self, task: str) -> Batch | None:
        return (self._batches or {}).get(task)

    def bucket_of(self, task: str) -> Bucket | None:
        return (self._buckets or {}).get(task)


def tasks(*args: Any, **options: Any) -> Any:
    """The same, for what wants routes or a pool."""
    return Tasks(*args, **options)
