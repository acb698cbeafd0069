"""Celery's worker as a Flybridge process, with the exit codes of `flybridge.bridge.errors`.

`flybridge worker` and `celery -A flybridge.workers.app worker` both run it.
"""

from __future__ import annotations

import atexit
import math
import sys
import warnings
from typing import Any

from celery import platforms, signals
from celery.apps.worker import (
    Worker,
    _reload_current_worker,
    install_cry_handler,
    install_rdb_handler,
)
from celery.exceptions import CPendingDeprecationWarning, ImproperlyConfigured
from celery.platforms import EX_FAILURE, EX_OK
from celery.worker import state

from flybridge.bridge.errors import EXIT_SETTINGS, EXIT_TASK
from flybridge.bridge.process.signals import Watch
from flybridge.bridge.telemetry import logs
from flybridge.handlers.loggers import get_logger
from flybridge.workers.celery_integration.bootstep import IntakeStep

log = get_logger(__name__)

SHOWN_TASKS = 5
"""Tasks that are named when a worker waits for them."""


class Program(Worker):
    """The `Worker` of `celery_app.App`."""

    exitcode: Any

    def on_before_init(self, loglevel: Any = None, logfile: Any = None, **options: Any) -> None:
        """Set up the logs first: whatever refuses to start must find `--logfile`."""
        self._logging = self.app.log.setup(loglevel, logfile, hostname=self.hostname)
        # At each loss of the broker Celery would advise against what `flybridge.workers.app` wants.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        super().on_before_init(loglevel=loglevel, logfile=logfile, **options)

    def setup_logging(self, colorize: Any = None) -> Any:
        """Celery sets up the logs here; we have, before."""
        return self._logging

    def emit_banner(self) -> None:
        """Celery's banner is for people; a machine reads `intake.started`."""
        if not logs.tells_json():
            super().emit_banner()

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

    def install_platform_tweaks(self, worker: Any) -> None:
        """Set up signals, as every process of ours has them; those of Celery that are left."""
        if not self._isatty:
            platforms.signals["SIGHUP"] = self._restart
        install_cry_handler()
        install_rdb_handler()
        Watch(self._stop_soon, waits_for=_running, give_back=self._give_back)

    def _restart(self, *_: Any) -> None:
        """Stop, and start again as a new program under the same pid: Celery's SIGHUP."""
        atexit.register(_begin_again)
        self._stop_soon()

    def _stop_soon(self) -> None:
        state.should_stop = EX_OK
        # Wakes the intake, too.
        signals.worker_shutting_down.send(
            sender=self.hostname, sig="SIGTERM", how="Warm", exitcode=EX_OK
        )

    def _give_back(self) -> None:
        for step in self.consumer.steps:
            if isinstance(step, IntakeStep):
                step.abandon()
        if self.pidlock:
            self.pidlock.release()

    def stop(self, in_sighandler: bool = False, exitcode: Any = None) -> None:
        """Celery's warm shutdown; an error that nothing caught ends with `EXIT_TASK`."""
        super().stop(in_sighandler, EXIT_TASK if exitcode == EX_FAILURE else exitcode)

    def terminate(self, in_sighandler: bool = False) -> None:
        """Celery's cold shutdown, which has no exit code of its own."""
        if self.exitcode is None:
            self.exitcode = EXIT_TASK
        super().terminate(in_sighandler)


def _begin_again() -> None:
    log.info("process.restarting", arguments=sys.argv)
    _reload_current_worker()


def _running() -> dict[str, Any]:
    """The tasks that a worker which is to end waits for."""
    running = [each for each in list(state.requests.values()) if each in state.active_requests]
    shown = [f"{each.name}[{each.id}]" for each in running[:SHOWN_TASKS]]
    return {"running": len(running), "waits_for": " ".join(shown)} if running else {}


def _check_time_limits(request: Any) -> None:
    """Refuse a message with wrong time limits: Celery would end the worker when the task runs.

    Raises:
        ValueError, TypeError: they are no seconds.
    """
    for limit in request.time_limits:
        if limit is not None and not 0 <= float(limit) < math.inf:
            raise ValueError(f"a time limit of {limit!r} seconds")
