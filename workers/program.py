"""Celery's worker as a Flybridge process: its exit codes are those of `bridge.errors`.

`flybridge worker` and `celery -A workers.app worker` both run it.
"""

from __future__ import annotations

import math
from typing import Any

import structlog
from celery.apps.worker import Worker
from celery.exceptions import ImproperlyConfigured
from celery.platforms import EX_FAILURE

from bridge.errors import EXIT_SETTINGS, EXIT_TASK

log = structlog.get_logger("workers.program")


class Program(Worker):
    """The `Worker` of our app; see `celery_app.App`."""

    exitcode: Any

    def on_after_init(self, **options: Any) -> None:
        """Set up the logs first: whatever refuses to start must find `--logfile`."""
        super().on_after_init(**options)
        self._logging = super().setup_logging()

    def setup_logging(self, colorize: Any = None) -> Any:
        """Celery sets up the logs here; we have, before."""
        return self._logging

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Choose the queues.

        Raises:
            SystemExit: there is no such queue.
        """
        try:
            super().setup_queues(include, exclude)
        except ImproperlyConfigured as error:
            known = ", ".join(queue.name for queue in self.app.conf.task_queues)
            log.critical("worker.refused", reason=f"{error}; there are {known}")
            raise SystemExit(EXIT_SETTINGS) from error

    def _process_task(self, request: Any) -> None:
        """Give a request to the pool. Celery keeps its slot for ever if that fails."""
        try:
            _check_time_limits(request)
            super()._process_task(request)
        except Exception as error:
            log.error("request.refused", task=request.name, id=request.id, reason=repr(error))
            if self.semaphore is not None:
                self.semaphore.release()
            request.reject(requeue=False)

    def stop(self, in_sighandler: bool = False, exitcode: Any = None) -> None:
        """Celery's warm shutdown; an error that nothing caught is a mistake of ours."""
        super().stop(in_sighandler, EXIT_TASK if exitcode == EX_FAILURE else exitcode)

    def terminate(self, in_sighandler: bool = False) -> None:
        """Celery's cold shutdown, which has no exit code of its own."""
        if self.exitcode is None:
            self.exitcode = EXIT_TASK
        super().terminate(in_sighandler)


def _check_time_limits(request: Any) -> None:
    """Celery would meet a message's wrong ones when the task runs already, and end the worker.

    Raises:
        ValueError, TypeError: they are no seconds.
    """
    for limit in request.time_limits:
        if limit is not None and not 0 <= float(limit) < math.inf:
            raise ValueError(f"a time limit of {limit!r} seconds")
