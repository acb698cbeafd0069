"""Configures logging: one shape for every log line, ours and the libraries', without secrets.

Modules log by ``log = get_logger(__name__)`` of `flybridge.handlers.loggers`, and need nothing
of this file. Lines go to stderr or a file, as text for people or as one JSON object each.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from textwrap import indent
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry import trace
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from flybridge.bridge.telemetry.redaction import keep_secret, redact, redactor
from flybridge.handlers import loggers

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_log = structlog.get_logger("flybridge")

INDENT = "    "
"""Indents each line of a traceback on a console."""

OFF = logging.CRITICAL + 50
"""The threshold of level `off`, above everything that is ever logged."""

FLOORS = {
    "asyncio": logging.WARNING,
    "celery": logging.INFO,
    "celery.app.trace": logging.WARNING,  # a line per task
    "celery.worker.strategy": logging.WARNING,  # likewise
    "kombu": logging.WARNING,
    "opentelemetry": logging.WARNING,
    "redis_lock": logging.ERROR,  # warns of each duplicate, which is our normal case
    "urllib3": logging.WARNING,
    "uvicorn": logging.WARNING,
    "websockets": logging.WARNING,  # its debug lines hold frames and the URL with the ticket
}
"""The lowest level of each library that is logged, whatever level is configured."""


def configure(
    level: str, log_format: str, *, secrets: Iterable[str] = (), file: str | None = None
) -> None:
    """Send structlog and the standard library's logging through one chain to stderr or a file.

    Args:
        level: debug, info, warning, error, critical or off. Even when off, an uncaught exception
            leaves a sentence.
        log_format: console or json.
        secrets: texts that must not be shown.
        file: path. After a rotation, lines go to the new file.
    """
    threshold = _threshold(level)
    keep_secret(secrets)
    loggers.use_configured()
    handler = _FileHandler(file) if file else _StreamHandler(sys.stderr)
    handler.setLevel(threshold)  # some libraries set the level of their own loggers
    colors = not file and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(_formatter(log_format, colors=colors))
    handler.tells_json = log_format == "json"
    root = logging.getLogger()
    for before in root.handlers:
        if isinstance(before, _FileHandler):
            before.close()
    root.handlers[:] = [handler]
    # For loggers that do not propagate and have no handler of their own, like billiard's.
    logging.lastResort = handler
    root.setLevel(threshold)
    for name, floor in FLOORS.items():
        logging.getLogger(name).setLevel(max(floor, threshold))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *_facts(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(threshold, logging.CRITICAL)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    sys.excepthook = _say_crash if threshold == OFF else _log_crash
    log_uncaught()


def say_last(text: str, *, as_json: bool) -> None:
    """Say why a process or a command ends, whether or not logging is configured.

    Args:
        text: each of its lines is printed on its own.
        as_json: as log lines, and not as `flybridge: …` for people.
    """
    for line in redact(text).splitlines():
        event: EventDict = {"level": "critical", "event": "process.refused", "reason": line}
        said = _render_json(None, "", _timestamp(None, "", event)) if as_json else line
        print(said if as_json else f"flybridge: {said}", file=sys.stderr, flush=True)


def format_to_be() -> str:
    """The log format, as far as it is known before the settings are read."""
    chosen = os.environ.get("FLYBRIDGE_LOG_FORMAT")
    return chosen or ("console" if sys.stderr.isatty() else "json")


def tells_json() -> bool:
    """Whether log lines are JSON."""
    return any(getattr(each, "tells_json", False) for each in logging.getLogger().handlers)


class _Handler(logging.Handler):
    """Reports a line that cannot be written by a line of the same shape, without a traceback."""

    tells_json = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        told = f"log.failed: a line of {record.name} cannot be written ({type(error).__name__})"
        substitute = logging.LogRecord(
            "flybridge.bridge.telemetry.logs", logging.ERROR, "", 0, told, (), None
        )
        with suppress(Exception):
            print(self.format(substitute), file=sys.stderr)


class _StreamHandler(_Handler, logging.StreamHandler[Any]):
    pass


class _FileHandler(_Handler, WatchedFileHandler):
    def __init__(self, file: str) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")


def embed(level: str, *, secrets: Iterable[str] = ()) -> None:
    """Log inside another program, which decides where lines go; see `flybridge.handlers.loggers`.

    Args:
        level: debug, info, warning, error or off; less severe lines are not passed to the program.
        secrets: texts that must not be shown.
    """
    keep_secret(secrets)
    loggers.embed(_threshold(level), _redact_all)


def _threshold(level: str) -> int:
    return OFF if level == "off" else logging.getLevelNamesMapping()[level.upper()]


def add_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor: add `trace_id` and `span_id` of the current span, if there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _facts() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _timestamp,
        add_trace,
    ]


def _timestamp(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    event["timestamp"] = now.replace("+00:00", "Z")
    return event


def _formatter(log_format: str, *, colors: bool) -> logging.Formatter:
    renderer: Processor = _render_json
    if log_format == "console":
        renderer = _console(colors=colors)
    # Redaction comes after tracebacks have become text and before rendering.
    return ProcessorFormatter(
        foreign_pre_chain=_facts(),
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redact_all,
            renderer,
        ],
    )


def _redact_all(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return redactor()(logger, method, event)


def _console(*, colors: bool) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        # Only the first line of an event begins at the left, whatever a text contains.
        event["event"] = str(event.get("event", "")).replace("\n", "\\n")
        for block in ("exception", "stack"):
            if block in event:
                event[block] = indent(str(event[block]), INDENT)
        # Code to paste is shown as it is, not as one quoted string.
        suggestion = event.pop("suggestion", "")
        line = renderer(logger, method, event)
        return f"{line}\n\n{suggestion}" if suggestion else line

    return render


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    head = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return json.dumps({**head, **event}, ensure_ascii=False)


def _log_crash(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    """Log an uncaught exception, so that it is redacted and machine-readable."""
    if issubclass(kind, KeyboardInterrupt):
        _log.critical("process.interrupted")
        return
    _log.critical("process.crashed", exc_info=(kind, error, where))


def _say_crash(
    kind: type[BaseException],
    error: BaseException,
    where: TracebackType | None,
) -> None:
    """With logging off, still print an uncaught exception in one line."""
    said = "interrupted"
    if not issubclass(kind, KeyboardInterrupt):
        said = "".join(traceback.format_exception_only(error))
    say_last(said, as_json=tells_json())


def log_uncaught() -> None:
    """Log what nobody catches in a thread, a callback or a destructor, and Python's warnings.

    Python itself would print them as they are, with secrets.
    """
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable
    # Celery calls it, too, and would change that otherwise.
    logging.captureWarnings(True)
    warnings.showwarning = _warning


def _in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is SystemExit or told.exc_value is None:
        return
    error = (told.exc_type, told.exc_value, told.exc_traceback)
    _log.error("thread.crashed", thread=told.thread and told.thread.name, exc_info=error)


def _unraisable(told: UnraisableHookArgs) -> None:
    if told.exc_value is None:
        return
    error = (told.exc_type, told.exc_value, told.exc_traceback)
    _log.warning("exception.ignored", place=told.err_msg or repr(told.object), exc_info=error)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    place = f"{filename}:{lineno}"
    _log.warning("python.warning", category=category.__name__, text=str(message), place=place)
