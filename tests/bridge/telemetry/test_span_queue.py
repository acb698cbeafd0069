"""Spans come to the collector without secrets; what is lost is counted and said."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags
from structlog.testing import capture_logs

from flybridge.bridge.telemetry import redaction, span_queue
from flybridge.bridge.telemetry.redaction import Redactor
from flybridge.bridge.telemetry.span_queue import SpanQueue

NEVER = 60.0


def span(name: str = "x", *, sampled: bool = True) -> ReadableSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return ReadableSpan(name, SpanContext(1, 2, is_remote=False, trace_flags=flags))


class Collector(SpanExporter):
    """Takes batches while it is open."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.batches: list[int] = []
        self.open, self.asked = threading.Event(), threading.Event()
        self.result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.open.wait(NEVER)
        self.batches.append(len(spans))
        return self.result

    def shutdown(self) -> None:
        self.open.set()


def test_a_burst_larger_than_a_batch_is_sent_at_once_and_in_full() -> None:
    collector = InMemorySpanExporter()
    queue = SpanQueue(collector, period=NEVER)
    for _ in range(3 * span_queue.BATCH):
        queue.on_end(span())
    queue.wait_for_room()
    assert queue.force_flush()

    assert len(collector.get_finished_spans()) == 3 * span_queue.BATCH
    assert queue.lost == 0
    queue.shutdown()


def test_a_batch_that_is_not_full_is_sent_after_a_while_and_at_the_end() -> None:
    collector = InMemorySpanExporter()
    SpanQueue(collector, period=0.01).on_end(span())
    ends = time.monotonic() + 10
    while not collector.get_finished_spans() and time.monotonic() < ends:
        threading.Event().wait(0.005)
    assert len(collector.get_finished_spans()) == 1

    queue = SpanQueue(collector, period=NEVER)
    queue.on_end(span())
    queue.on_end(span(sampled=False))
    queue.shutdown()
    assert len(collector.get_finished_spans()) == 2


def test_what_finds_no_room_is_counted_and_said_once() -> None:
    collector = Collector()
    queue = SpanQueue(collector, capacity=10, batch=10, period=NEVER)
    with capture_logs() as logs:
        for _ in range(10):
            queue.on_end(span())
        assert collector.asked.wait(10)  # the first ten are on their way
        for _ in range(25):
            queue.on_end(span())
        collector.open.set()
        assert queue.force_flush()
        queue.shutdown()

    assert collector.batches == [10, 10]
    assert queue.lost == 15
    (line,) = [line for line in logs if line["event"] == "telemetry.spans_lost"]
    assert (line["spans"], line["in_all"]) == (15, 15)
    assert "collector" in line["cure"]


@pytest.mark.parametrize("raises", [False, True])
def test_what_the_collector_does_not_take_is_counted(
    raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(SpanExportResult.FAILURE)
    collector.open.set()
    if raises:
        monkeypatch.setattr(collector, "export", lambda spans: 1 / 0)
    queue = SpanQueue(collector, period=NEVER)
    queue.on_end(span())
    assert queue.force_flush()
    queue.on_end(span())
    queue.shutdown()

    assert queue.lost == 2


def test_who_waits_for_room_waits_for_a_slow_collector_and_not_for_a_dead_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_queue, "ROOM_TIMEOUT", 0.3)
    collector = Collector()
    queue = SpanQueue(collector, capacity=4, batch=2, period=NEVER)
    for _ in range(6):
        queue.on_end(span())
    threading.Timer(0.05, collector.open.set).start()
    queue.wait_for_room()
    assert len(collector.batches) >= 1
    assert queue.force_flush()

    collector.open.clear()
    for _ in range(6):
        queue.on_end(span())
    began = time.monotonic()
    for _ in range(100):
        queue.wait_for_room()
    assert time.monotonic() - began < 5
    queue.shutdown()


def test_the_end_does_not_wait_for_a_dead_collector_and_counts_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_queue, "FLUSH_BUDGET", 0.05)
    collector = Collector(SpanExportResult.FAILURE)
    queue = SpanQueue(collector, batch=2, period=NEVER)
    for _ in range(5):
        queue.on_end(span())
    assert collector.asked.wait(10)
    monkeypatch.setattr(span_queue, "FLUSH_BUDGET", 1.0)
    queue.shutdown()

    assert queue.lost == 5
    assert sum(collector.batches) == 2


def test_the_environment_sizes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "nonsense")
    collector = Collector()
    queue = SpanQueue(collector)
    for _ in range(3):
        queue.on_end(span())
    assert collector.asked.wait(10)
    for _ in range(5):
        queue.on_end(span())
    assert queue.lost == 2
    queue.shutdown()


def test_nothing_a_span_says_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", Redactor(["canary-1-app-secret"]))
    collector = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(collector, period=NEVER))
    link = Link(SpanContext(1, 2, is_remote=False), {"url": "redis://:canary-2@h"})
    tracer = provider.get_tracer("users.own")
    made = tracer.start_span("GET https://u:canary-3@h/", links=[link])
    made.set_attributes({"db.url": "mysql://u:canary-4@h", "api_key": "canary-5", "n": 1})
    made.set_attribute("urls", ["redis://:canary-6@h"])
    made.add_event("retry", {"why": "password=canary-7"})
    made.record_exception(ValueError("canary-1-app-secret at redis://:canary-8@h"))
    made.set_status(StatusCode.ERROR, "no canary-1-app-secret at redis://:canary-8@h")
    made.end()
    provider.shutdown()

    (sent,) = collector.get_finished_spans()
    assert "canary" not in sent.to_json()
    assert sent.attributes is not None
    assert sent.attributes["n"] == 1
    assert sent.attributes["db.url"] == "mysql://[redacted]@h"
    assert sent.status.description == "no [redacted] at redis://[redacted]@h"
    assert [event.name for event in sent.events] == ["retry", "exception"]
