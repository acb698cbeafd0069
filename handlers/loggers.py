"""The loggers of Flybridge's modules and of handlers' contexts.

In a process of Flybridge (`flybridge …`, a Celery worker) `flybridge.bridge.telemetry.logs`
configures structlog, and these are its loggers. Embedded in a program, log lines go where those of
the program go: through structlog if the program has configured it, else through the standard
library's `logging`, under the same names.

Embedded, tracebacks are passed on as text and never as exception objects: a renderer might print
the local variables of each frame, which hold bodies and passwords.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Redact = Callable[[Any, str, Any], Any]
"""A structlog processor that takes secrets out of a line."""


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module; each line goes where the process logs at that moment."""
    return cast("FilteringBoundLogger", _Logger(name))


def use_configured() -> None:
    """Log through structlog as it is configured, for a process of Flybridge."""
    global _destination
    _destination = None


def embed(threshold: int, redact: Redact) -> None:
    """Log through the program that embeds Flybridge; no effect in a process of Flybridge.

    Args:
        threshold: the lowest level that is logged, a number as in `logging`.
        redact: applied to each line.
    """
    global _destination
    if _destination is not None:
        _destination = _Destination(threshold, redact)


@dataclass(frozen=True, slots=True)
class _Destination:
    """Where log lines go in an embedding program."""

    threshold: int
    redact: Redact | None

    def logger(self, name: str, *, configured: bool) -> Any:
        wrapper = _guest(self)
        if configured:
            return structlog.wrap_logger(None, wrapper_class=wrapper, logger_factory_args=(name,))
        return structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.contextvars.merge_contextvars, _as_message],
            wrapper_class=wrapper,
            context_class=dict,
        )


_destination: _Destination | None = _Destination(logging.NOTSET, None)
"""None: Flybridge has configured structlog."""


class _Logger:
    """Passes calls on to the real logger, which it looks up again when the destination changes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: tuple[object, Any] = (self, None)

    def __getattr__(self, method: str) -> Any:
        configured = structlog.is_configured()
        key = (_destination, configured)
        if self._found[0] != key:
            self._found = (key, self._look_up(configured=configured))
        return getattr(self._found[1], method)

    def _look_up(self, *, configured: bool) -> Any:
        if _destination is None:
            return structlog.get_logger(self._name)
        return _destination.logger(self._name, configured=configured)


@cache
def _guest(destination: _Destination) -> type[Any]:
    """The class of a bound logger that passes tracebacks on as text."""
    lowest = min(destination.threshold, logging.CRITICAL)
    base: type[Any] = structlog.make_filtering_bound_logger(lowest)
    hand_on = base._process_event

    def process(self: Any, method: str, event: str | None, fields: dict[str, Any]) -> Any:
        if destination.threshold > logging.CRITICAL:
            raise structlog.DropEvent
        line = {**_in_words(fields), "event": event}
        if destination.redact:
            line = destination.redact(None, method, line)
        return hand_on(self, method, line.pop("event"), line)

    return type("Guest", (base,), {"_process_event": process})


def _in_words(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with a traceback as text instead of an exception."""
    if not fields.get("exc_info"):
        return fields
    rest = {name: value for name, value in fields.items() if name != "exc_info"}
    text = _traceback(fields["exc_info"])
    return {**rest, "exception": text} if text else rest


def _traceback(found: Any) -> str:
    if not isinstance(found, tuple | BaseException):
        found = sys.exc_info()
    if isinstance(found, BaseException):
        found = (type(found), found, found.__traceback__)
    return "".join(traceback.format_exception(*found)).rstrip() if found[1] else ""


def _as_message(logger: WrappedLogger, method: str, line: EventDict) -> str:
    """`event name=value …`, and the traceback below it."""
    event, exception = str(line.pop("event", "")), line.pop("exception", "")
    fields = " ".join(f"{name}={value!r}" for name, value in line.items())
    text = f"{event} {fields}" if fields else event
    return f"{text}\n{exception}" if exception else text
