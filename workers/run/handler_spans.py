"""The spans of handlers, made where these run: children of the process span of the intake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, Status, StatusCode

from flybridge.bridge.telemetry import semconv, tracing
from flybridge.bridge.telemetry.redaction import redact
from flybridge.handlers.calling.tracebacks import rendered
from flybridge.handlers.registry import Registration
from flybridge.workers.run.calls import Around
from flybridge.workers.run.failures import describe
from flybridge.workers.run.items import Item


def handler_spans(items: Sequence[Item]) -> Around | None:
    """What wraps a handler of these events in a span of its own; None where nothing is exported.

    A span for several events belongs to the first one's trace and is linked to the others.
    """
    traced = [item for item in items if item.traceparent]
    if not traced or not isinstance(trace.get_tracer_provider(), TracerProvider):
        return None
    given = (tracing.parse_context(item.traceparent, item.tracestate) for item in traced)
    contexts = [context for context in given if context is not None]
    if not contexts:
        return None
    parent = trace.set_span_in_context(trace.NonRecordingSpan(contexts[0]))
    links = [Link(context) for context in contexts[1:]]
    tracer = trace.get_tracer(semconv.SCOPE_HANDLERS, schema_url=semconv.SCHEMA_URL)

    @contextmanager
    def around(registration: Registration) -> Iterator[object]:
        attributes = {semconv.HANDLER: registration.name}
        name = semconv.SPAN_HANDLE + registration.name
        # Failures are recorded here, for the provider may be the user's, which redacts nothing.
        with tracer.start_as_current_span(
            name, parent, attributes=attributes, links=links,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            try:
                yield span
            except Exception as error:
                _record(span, error)
                raise

    return around


def _record(span: Span, error: Exception) -> None:
    """What OpenTelemetry records of an exception, without secrets and frames of the framework."""
    text = redact(describe(error))
    span.set_status(Status(StatusCode.ERROR, text))
    span.add_event(
        "exception",
        {
            "exception.type": type(error).__qualname__,
            "exception.message": text.partition(": ")[2],
            "exception.stacktrace": redact(rendered(error)),
        },
    )
