"""A bounded queue of finished spans, and the thread that exports them without secrets.

It replaces OpenTelemetry's BatchSpanProcessor, which silently drops spans when its 2,048 places are
taken. Here lost spans are counted and logged, and callers that can wait may wait for room. A killed
process loses what it has not exported: one second's spans at most while the collector keeps up.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, set_value
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from flybridge.bridge.telemetry import semconv
from flybridge.bridge.telemetry.redaction import Redactor, redactor
from flybridge.handlers.loggers import get_logger

CAPACITY = 32_768
"""Spans that may wait, some 30 MB, unless ``OTEL_BSP_MAX_QUEUE_SIZE`` is set."""

BATCH = 512
"""Spans in one request at most, unless ``OTEL_BSP_MAX_EXPORT_BATCH_SIZE`` is set."""

SCHEDULE_DELAY = 1_000
"""Milliseconds until a batch is sent that is not full, by ``OTEL_BSP_SCHEDULE_DELAY`` if set."""

ROOM_TIMEOUT = 0.5
"""Seconds that `wait_for_room` waits at most."""

FLUSH_BUDGET = 1.5
"""Seconds that `shutdown` gives to what still waits."""

LOG_PERIOD = 60.0
"""Seconds between two log lines about lost spans."""

CURE = (
    "the collector is away or too slow: see whether it is well, or sample less, with "
    "OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG=0.1 for the bridges"
)

log = get_logger(__name__)


class SpanQueue(SpanProcessor):
    """Exports finished spans in batches, without secrets.

    Args:
        capacity, batch, period: None: as the environment says, or the default.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        capacity: int | None = None,
        batch: int | None = None,
        period: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost = 0
        """Spans lost since the start: no room, or not taken by the collector."""
        self._exporter = exporter
        self._capacity = capacity or _number("OTEL_BSP_MAX_QUEUE_SIZE", CAPACITY)
        wanted = batch or _number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)
        self._batch = min(wanted, self._capacity)
        self._period = period or _number("OTEL_BSP_SCHEDULE_DELAY", SCHEDULE_DELAY) / 1000
        self._clock = clock
        self._spans: deque[ReadableSpan] = deque()
        self._changed = threading.Condition()
        self._added = self._done = self._flush_to = 0
        self._closing = False
        self._taking = True
        """Whether the collector took the last batch in time."""
        self._told, self._told_at = 0, -LOG_PERIOD
        self._thread = threading.Thread(target=self._run, name="flybridge-spans", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: only finished spans are exported."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a finished span, without waiting."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._changed:
            if self._closing or len(self._spans) >= self._capacity:
                self.lost += 1
                return
            self._spans.append(span)
            self._added += 1
            if self._is_due():
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait until half of the queue is free, as long as the collector takes spans."""
        with self._changed:
            if not self._is_crowded():
                return
            self._flush_to = self._added
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._is_crowded(), ROOM_TIMEOUT):
                self._taking = False

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send all that waits now; False if that took too long."""
        with self._changed:
            self._flush_to = self._added
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: self._done >= self._flush_to, timeout_millis / 1000
            )

    def shutdown(self) -> None:
        """Send what waits, for `FLUSH_BUDGET` seconds at most, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(FLUSH_BUDGET)
        with self._changed:
            self.lost += len(self._spans)
            self._spans.clear()
        self._exporter.shutdown()
        self._thread.join(FLUSH_BUDGET / 10)
        self._tell()

    def _is_due(self) -> bool:
        waits = len(self._spans)
        return self._closing or waits >= self._batch or (waits > 0 and self._done < self._flush_to)

    def _is_crowded(self) -> bool:
        return self._taking and not self._closing and len(self._spans) * 2 > self._capacity

    def _run(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # no spans of our own requests
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, self._period)
                count = min(len(self._spans), self._batch)
                batch = [self._spans.popleft() for _ in range(count)]
                is_last = self._closing and not self._spans
            if batch:
                self._send(batch)
            if is_last:
                return
            if self._clock() - self._told_at >= LOG_PERIOD:
                self._tell()

    def _send(self, batch: Sequence[ReadableSpan]) -> None:
        try:
            result = self._exporter.export([redacted(span) for span in batch])
        except Exception as error:  # an exporter may raise anything, and the thread has to go on
            log.warning("telemetry.export_failed", error=repr(error), cure=CURE)
            result = SpanExportResult.FAILURE
        with self._changed:
            self._taking = result is SpanExportResult.SUCCESS
            self.lost += 0 if self._taking else len(batch)
            self._done += len(batch)
            self._changed.notify_all()

    def _tell(self) -> None:
        """Log the losses since the last time."""
        lost = self.lost
        if lost > self._told:
            log.warning("telemetry.spans_lost", spans=lost - self._told, in_all=lost, cure=CURE)
            self._told, self._told_at = lost, self._clock()


def _number(variable: str, default: int) -> int:
    """One of OpenTelemetry's variables; what is no number above 0 counts as not set."""
    text = os.environ.get(variable, "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else default


def redacted(span: ReadableSpan) -> ReadableSpan:
    """The span itself if only Flybridge wrote into it, else a copy without secrets."""
    if _is_plain(span):
        return span
    known = redactor()
    return ReadableSpan(
        name=known.text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_clean(span.attributes, known),
        events=[
            Event(known.text(each.name), _clean(each.attributes, known), each.timestamp)
            for each in span.events
        ],
        links=[Link(each.context, _clean(each.attributes, known)) for each in span.links],
        kind=span.kind,
        status=_clean_status(span.status, known),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _is_plain(span: ReadableSpan) -> bool:
    """Whether it holds only our ids and numbers; most spans do, and copies cost time."""
    scope = span.instrumentation_scope
    is_ours = scope is None or scope.name == semconv.SCOPE_BRIDGE
    return is_ours and not span.events and not span.status.description


def _clean(attributes: Mapping[str, Any] | None, known: Redactor) -> dict[str, Any]:
    return {name: known.field(name, value) for name, value in (attributes or {}).items()}


def _clean_status(status: Status, known: Redactor) -> Status:
    text = status.description
    return Status(status.status_code, known.text(text) if text else None)
