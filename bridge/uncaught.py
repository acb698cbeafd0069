"""What nobody caught in a thread, a callback or a destructor becomes a log line, without secrets;
so do Python's warnings. Python itself would print them as they are. Exceptions of the main thread
are for `logs`."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from handlers.loggers import get_logger

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

log = get_logger("flybridge")


def log_uncaught() -> None:
    """From now on, in this process."""
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable
    # Celery calls it, too, and would change that otherwise.
    logging.captureWarnings(True)
    warnings.showwarning = _warning


def _in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is SystemExit or told.exc_value is None:
        return
    error = (told.exc_type, told.exc_value, told.exc_traceback)
    log.error("thread.crashed", thread=told.thread and told.thread.name, exc_info=error)


def _unraisable(told: UnraisableHookArgs) -> None:
    if told.exc_value is None:
        return
    error = (told.exc_type, told.exc_value, told.exc_traceback)
    log.warning("exception.ignored", place=told.err_msg or repr(told.object), exc_info=error)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    place = f"{filename}:{lineno}"
    log.warning("python.warning", category=category.__name__, text=str(message), place=place)
