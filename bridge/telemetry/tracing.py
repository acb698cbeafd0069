"""Tracing: the exporter that the ``OTEL_*`` variables ask for, and trace context as entry fields.

Without ``OTEL_*`` variables nothing is installed, nothing leaves the process, and every span is the
API's no-op.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Span, SpanContext, TraceFlags, TraceState

from flybridge.bridge.telemetry import semconv
from flybridge.bridge.telemetry.redaction import redactor
from flybridge.bridge.telemetry.span_queue import SpanQueue
from flybridge.handlers.loggers import get_logger

BRIDGE = "flybridge-bridge"
WORKER = "flybridge-worker"

FLUSH_BUDGET = 2.0
"""Seconds `Telemetry.shutdown` may take: an absent collector must not hold up a hand-over."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_LIMIT = 512  # W3C: what a vendor has to carry at least

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What `start` installed; `provider` is None where nothing is exported."""

    provider: TracerProvider | None = None
    queue: SpanQueue | None = None
    """The queue of our provider; None for the user's own."""

    @property
    def enabled(self) -> bool:
        return self.provider is not None

    def shutdown(self) -> None:
        """Export what is waiting, for `FLUSH_BUDGET` seconds at most, and stop."""
        if self.provider is None:
            return
        # In a thread of its own, because the SDK's time limits stop no export that has begun.
        flush = threading.Thread(target=self.provider.shutdown, name="telemetry-flush", daemon=True)
        flush.start()
        flush.join(FLUSH_BUDGET)
        if flush.is_alive():
            log.warning("telemetry.flush_abandoned", after=FLUSH_BUDGET)


_started = Telemetry()


def spans_lost() -> int:
    """Spans of the provider made by `start` that never reached the collector."""
    return _started.queue.lost if _started.queue else 0


def installed() -> bool:
    """Whether spans are exported in this process, by whichever provider."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


def start(service: str) -> Telemetry:
    """Install a tracer provider if the environment asks for one; `service` is the default name.

    In a process that forks, call it after the fork. An existing provider, the user's own or one
    inherited by a fork, stays in place and is shut down like ours.
    """
    global _started
    installed = trace.get_tracer_provider()
    if isinstance(installed, TracerProvider):
        return Telemetry(installed)
    exporter = span_exporter()
    if exporter is None:
        return Telemetry()
    provider = TracerProvider(resource=resource(service), shutdown_on_exit=False)
    queue = SpanQueue(exporter)
    provider.add_span_processor(queue)
    trace.set_tracer_provider(provider)
    log.info("telemetry.started", service=provider.resource.attributes["service.name"])
    _started = Telemetry(provider, queue)
    return _started


def span_exporter() -> SpanExporter | None:
    """The exporter that ``OTEL_*`` asks for; None unless one is named or an endpoint is given.

    Of several in ``OTEL_TRACES_EXPORTER``, otlp comes before console.
    """
    if _variable("OTEL_SDK_DISABLED").lower() == "true":
        return None
    default = "otlp" if any(map(_variable, _ENDPOINTS)) else "none"
    named = _variable("OTEL_TRACES_EXPORTER") or default
    names = {name.strip().lower() for name in named.split(",")}
    if "otlp" in names:
        return _otlp()
    if "console" in names:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if names != {"none"}:
        log.warning("telemetry.exporter_unknown", exporter=named, known="otlp, console, none")
    return None


def format_context(span: Span) -> tuple[str, str]:
    """`traceparent` and `tracestate` as W3C writes them; both empty for a span of no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return "", ""
    ids = f"{context.trace_id:032x}-{context.span_id:016x}"
    return f"00-{ids}-{context.trace_flags:02x}", context.trace_state.to_header()


def parse_context(traceparent: str, tracestate: str) -> SpanContext | None:
    """Read what `format_context` wrote; None for anything else, since others may write entries too.

    An unreadable `tracestate` is dropped and the context kept, as W3C asks.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    context = SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED),
        trace_state=_trace_state(tracestate),
    )
    return context if context.is_valid else None


def _trace_state(header: str) -> TraceState:
    if not header or len(header) > _TRACESTATE_LIMIT:
        return TraceState()
    return TraceState.from_header([header])


def _otlp() -> SpanExporter | None:
    protocol = next(filter(None, map(_variable, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        cure = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf and the collector's HTTP port, 4318"
        log.warning("telemetry.protocol_unsupported", protocol=protocol, cure=cure)
        return None
    # Imported here: it brings requests along, and most processes export nothing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def resource(service: str) -> Resource:
    """The identity of this process in traces; `service` is its name unless ``OTEL_*`` give one."""
    given = OTELResourceDetector().detect().attributes
    ours = {"service.name": service, "service.instance.id": str(uuid4())}
    told = {name: redactor().field(name, value) for name, value in {**ours, **given}.items()}
    return Resource.create(told, semconv.SCHEMA_URL)


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
