"""A handler's span: below the process span, with its failure; none where nothing is traced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flybridge.handlers import Registry
from flybridge.workers.run.handler_spans import handler_spans
from flybridge.workers.run.items import Item

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PUBLISH = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PUBLISH}-01"
UNSAMPLED = f"00-{TRACE}-{PUBLISH}-00"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(monkeypatch, exporter) -> Iterator[TracerProvider]:
    """A provider as a pool child has it, without touching the process' own."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", lambda name, **_: provider.get_tracer(name))
    yield provider
    provider.shutdown()


@pytest.fixture
def registration():
    def handler(event, context) -> None: ...

    return Registry().register(handler, "im.message.receive_v1")


def item(traceparent: str) -> Item:
    return Item("ev-1", "test.row_v1", b"{}", 1, {}, 0, traceparent, "")


def test_a_handler_has_a_span_below_the_process_span(provider, exporter, registration):
    around = handler_spans([item(SAMPLED)])
    assert around is not None
    with around(registration):
        inner = trace.get_current_span().get_span_context()
    (span,) = exporter.get_finished_spans()
    assert span.name == f"handle {registration.name}"
    assert f"{span.parent.span_id:016x}" == PUBLISH
    assert inner.span_id == span.context.span_id


def test_a_failing_handler_fails_its_span_too(provider, exporter, registration):
    around = handler_spans([item(SAMPLED)])
    with pytest.raises(ValueError, match="no"), around(registration):
        raise ValueError("no")
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


def test_a_batch_has_one_span_linked_to_the_other_events(provider, exporter, registration):
    other = f"00-{TRACE[::-1]}-{PUBLISH[::-1]}-01"
    around = handler_spans([item(""), item(SAMPLED), item(other)])
    with around(registration):
        pass
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE[::-1]]


def test_handlers_run_without_spans_where_nothing_is_exported_or_sampled(provider, monkeypatch):
    assert handler_spans([item("")]) is None
    assert handler_spans([item("00-zz")]) is None
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    assert handler_spans([item(SAMPLED)]) is None
