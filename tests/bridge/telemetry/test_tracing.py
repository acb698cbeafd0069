"""Nothing is exported unless OTEL_* says so; trace context survives the way through an entry."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.util._once import Once

from flybridge.bridge.telemetry import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has one tracer provider for ever; each test starts without."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


class Collector(HTTPServer):
    """What an OTLP collector keeps of the spans it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Collect)
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Collect(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# Which exporter


def test_nothing_is_exported_when_no_variable_asks_for_it() -> None:
    started = tracing.start(tracing.BRIDGE)

    assert not started.enabled
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)
    started.shutdown()


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": " console , OTLP "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"},
    ],
)
def test_otlp_is_chosen_by_name_or_by_endpoint(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    exporter = tracing.span_exporter()

    assert type(exporter).__name__ == "OTLPSpanExporter"
    exporter.shutdown()


def test_console_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")

    assert isinstance(tracing.span_exporter(), ConsoleSpanExporter)


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_an_endpoint_is_overruled_by_the_other_variables(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert tracing.span_exporter() is None


# From start to shutdown


def test_spans_reach_the_collector_at_shutdown_with_the_services_name(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    started = tracing.start(tracing.WORKER)

    with trace.get_tracer("test").start_as_current_span("process im"):
        pass
    started.shutdown()

    assert started.enabled
    (request,) = collector.requests
    (resource,) = request.resource_spans
    attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert attributes["service.name"] == "flybridge-worker"
    assert attributes["service.instance.id"]
    assert resource.scope_spans[0].spans[0].name == "process im"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_SERVICE_NAME", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine")],
)
def test_the_environment_names_the_service(
    variable: str, value: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv(variable, value)

    started = tracing.start(tracing.BRIDGE)

    assert started.provider is not None
    assert started.provider.resource.attributes["service.name"] == "mine"
    started.shutdown()


def test_a_provider_that_is_there_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    users_own = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(users_own)

    assert tracing.start(tracing.BRIDGE).provider is users_own


class Stuck(SpanExporter):
    """A collector that never answers, until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.released.wait(30)
        return SpanExportResult.FAILURE


def test_shutdown_does_not_wait_for_a_stuck_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FLUSH_BUDGET", 0.05)
    provider, stuck = TracerProvider(shutdown_on_exit=False), Stuck()
    provider.add_span_processor(BatchSpanProcessor(stuck))
    provider.get_tracer("test").start_span("x").end()

    began = time.monotonic()
    tracing.Telemetry(provider).shutdown()

    assert time.monotonic() - began < 5
    stuck.released.set()


# Trace context in entries


def test_a_spans_context_survives_the_entry_fields() -> None:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("publish im")

    parsed = tracing.parse_context(*tracing.format_context(span))

    original = span.get_span_context()
    assert parsed is not None
    assert (parsed.trace_id, parsed.span_id) == (original.trace_id, original.span_id)
    assert parsed.is_remote
    assert parsed.trace_flags.sampled


def test_trace_state_is_carried_along() -> None:
    state = TraceState([("vendor", "1"), ("other", "x")])
    span = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_state=state))

    traceparent, tracestate = tracing.format_context(span)

    assert traceparent == f"00-{1:032x}-{2:016x}-00"
    parsed = tracing.parse_context(traceparent, tracestate)
    assert parsed is not None
    assert dict(parsed.trace_state) == {"vendor": "1", "other": "x"}
    assert parsed.trace_flags == TraceFlags.DEFAULT


def test_a_span_of_no_trace_has_no_context() -> None:
    assert tracing.format_context(trace.INVALID_SPAN) == ("", "")


def test_a_later_version_with_more_fields_is_read_as_far_as_it_is_known() -> None:
    assert tracing.parse_context("01" + PARENT[2:] + "-more", "") is not None


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x",
        PARENT.upper(),
        PARENT + "\n",
        PARENT + "-more",
        PARENT[:-1],
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
    ],
)
def test_another_traceparent_is_none(traceparent: str) -> None:
    assert tracing.parse_context(traceparent, "") is None


@pytest.mark.parametrize("tracestate", ["=", "a" * 600, "\x00", "a=1,a=2", ",,,", "A B=1"])
def test_an_unreadable_tracestate_leaves_the_context(tracestate: str) -> None:
    assert tracing.parse_context(PARENT, tracestate) is not None


@given(st.text(), st.text())
def test_parse_context_never_raises(traceparent: str, tracestate: str) -> None:
    tracing.parse_context(traceparent, tracestate)
    assert tracing.parse_context(PARENT, tracestate) is not None
