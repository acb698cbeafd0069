"""One shape for every log line, ours and the libraries', with secrets taken out of all of them.

Not a place to log from: modules do ``log = structlog.get_logger("bridge.lease")`` and know nothing
of this file. Lines go to stderr, as text for people or as one JSON object each.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import quote

import structlog
from opentelemetry import trace
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"

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
"""The least severe level that is let through of each library, whatever level is configured."""

_SECRET_KEY = re.compile(r"secret|token|ticket|access_?key|password|authorization", re.IGNORECASE)
_SECRET_PAIR = re.compile(
    r"""((?:secret|token|ticket|access_?key|password|authorization)["']?\s*[=:]\s*["']?(?:bearer\s+)?)"""
    r"""[^\s"'&,;)}\]]+""",
    re.IGNORECASE,
)
_URL = re.compile(
    r"([a-z][a-z0-9+.-]*://)([^\s/?#@\"'<>]*@)?([^\s?#\"'<>]*)(\?[^\s#\"'<>]*)?", re.I
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Redactor:
    """A structlog processor that takes secrets out of every value of an event, however nested.

    Args:
        secrets: texts that may stand nowhere at all, like the app secret.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {form for text in secrets if text for form in (text, quote(text, safe=""))}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self._field(key, value) for key, value in event.items()}

    def _field(self, key: str, value: Any) -> Any:
        return REDACTED if _SECRET_KEY.search(key) else self._value(value)

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(key): self._field(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item) for item in value]
        return self.text(value if isinstance(value, str) else repr(value))

    def text(self, text: str) -> str:
        """`text` without secrets, and with control characters spelt out (they move a terminal)."""
        text = self._secrets.sub(REDACTED, text)
        if "://" in text:
            text = _URL.sub(_bare_url, text)
        text = _SECRET_PAIR.sub(rf"\1{REDACTED}", text)
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def configure(level: str, log_format: str, *, secrets: Iterable[str] = ()) -> None:
    """Send structlog and the standard library's logging through one chain to stderr.

    Args:
        level: debug, info, warning, error or off. Even then an exception that nobody catches leaves
            a sentence.
        log_format: console or json.
        secrets: values that are blanked wherever they occur.
    """
    threshold = OFF if level == "off" else logging.getLevelNamesMapping()[level.upper()]
    redactor = Redactor(secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(threshold)  # some libraries set the level of their own loggers
    handler.setFormatter(_formatter(log_format, redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
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
    sys.excepthook = partial(_say_crash, redactor) if threshold == OFF else _log_crash


def add_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor: `trace_id` and `span_id` of the current span, if there is one."""
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


def _formatter(log_format: str, redactor: Redactor) -> logging.Formatter:
    renderer: Processor = _render_json
    if log_format == "console":
        renderer = _console()
    # Redaction stands after the traceback has become text and before anything is rendered.
    return ProcessorFormatter(
        foreign_pre_chain=_facts(),
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redactor,
            renderer,
        ],
    )


def _console() -> Processor:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        # Code to paste stands under its line as it is, not as one quoted string.
        suggestion = event.pop("suggestion", "")
        line = renderer(logger, method, event)
        return f"{line}\n\n{suggestion}" if suggestion else line

    return render


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    head = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return json.dumps({**head, **event}, ensure_ascii=False)


def _bare_url(url: re.Match[str]) -> str:
    scheme, user, place, query = url.groups()
    return f"{scheme}{f'{REDACTED}@' if user else ''}{place}{f'?{REDACTED}' if query else ''}"


def _log_crash(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    """What nobody caught becomes a log line too, so that it is redacted and machine-readable."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    structlog.get_logger("flybridge").critical("process.crashed", exc_info=(kind, error, where))


def _say_crash(
    redactor: Redactor,
    kind: type[BaseException],
    error: BaseException,
    where: TracebackType | None,
) -> None:
    """With the logs off, what nobody caught is the last thing said all the same."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    for line in "".join(traceback.format_exception_only(error)).splitlines():
        print(f"flybridge: {redactor.text(line)}", file=sys.stderr)
