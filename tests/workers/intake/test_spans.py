"""The worker's spans: one process span an attempt, with claim and settle below; nothing unasked."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flybridge.bridge.store.streams import Entry
from flybridge.bridge.telemetry import semconv, span_queue, tracing
from flybridge.workers.claim.claims import Pending, Run, Settlement
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.intake.spans import IntakeSpans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PUBLISH = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PUBLISH}-01"
UNSAMPLED = f"00-{TRACE}-{PUBLISH}-00"


def run(traceparent: str = SAMPLED, tracestate: str = "vendor=1", first_trace: str = "") -> Run:
    entry = Entry("ev1", "im", "app", "tk", "2.0", 1, 2, 3, traceparent, tracestate, b"{}",
                  replayed_at=4 if first_trace else 0, first_trace=first_trace)  # fmt: skip
    return Run(Pending("events:im", "1-1", entry), "token", 2, {})


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def intake(exporter: InMemorySpanExporter) -> IntakeSpans:
    return IntakeSpans(exporter, Resource.create({"service.name": "worker"}), "workers")


def finished(intake: IntakeSpans, exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    intake.close()
    return {span.name.split(" ")[0]: span for span in exporter.get_finished_spans()}


def test_an_attempt_is_a_child_of_the_publish_span_and_claim_and_settle_are_its_own(
    intake, exporter
):
    claimed = run()
    intake.claimed([claimed], 100, 200)
    intake.settled([Settlement(claimed, Outcome(finished=("H",)))], 300, 400)
    found = finished(intake, exporter)
    process = found["process"]
    assert process.name == "process events:im"
    assert process.kind is SpanKind.CONSUMER
    assert f"{process.parent.span_id:016x}" == PUBLISH
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    assert found["claim"].parent.span_id == process.context.span_id
    assert found["settle"].parent.span_id == process.context.span_id
    assert (process.start_time, process.end_time) == (100, 400)
    assert process.attributes[semconv.ATTEMPT] == 2
    assert process.attributes[semconv.VERDICT] == "done"
    assert process.attributes[semconv.MESSAGING_MESSAGE_ID] == "1-1"
    assert process.context.trace_state.to_header() == "vendor=1"


def test_the_child_gets_the_context_of_the_process_span(intake, exporter):
    claimed = run()
    intake.claimed([claimed], 1, 2)
    traceparent = intake.context(claimed)
    intake.settled([Settlement(claimed, Outcome())], 3, 4)
    context = tracing.parse_context(traceparent, "")
    assert context is not None
    assert context.span_id == finished(intake, exporter)["process"].context.span_id


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome(failed=(Failure("H", "rejected", "Reject: no"),)), "Reject: no"),
        (Outcome(retry_after=1.0, error="ValueError: no"), "ValueError: no"),
    ],
)
def test_an_attempt_that_failed_says_why(intake, exporter, outcome, error):
    claimed = run()
    intake.claimed([claimed], 1, 2)
    intake.settled([Settlement(claimed, outcome)], 3, 4)
    status = finished(intake, exporter)["process"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, error)


@pytest.mark.parametrize("traceparent", ["", UNSAMPLED, "00-zz", "00-" + "0" * 32 + "-1-01"])
def test_events_that_nobody_traces_cost_nothing(intake, exporter, traceparent):
    claimed = run(traceparent)
    intake.claimed([claimed], 1, 2)
    assert intake.context(claimed) == ""
    intake.settled([Settlement(claimed, Outcome())], 3, 4)
    assert finished(intake, exporter) == {}


def test_a_replayed_event_begins_a_trace_of_its_own_that_is_linked_to_the_first(intake, exporter):
    for _ in range(2):  # attempts, perhaps on two workers
        claimed = run("", "", SAMPLED)
        intake.claimed([claimed], 1, 2)
        assert intake.context(claimed).endswith("-01")
        intake.settled([Settlement(claimed, Outcome())], 3, 4)
    intake.close()
    spans_made = exporter.get_finished_spans()
    assert len(spans_made) == 6
    (trace_id,) = {span.context.trace_id for span in spans_made}
    assert f"{trace_id:032x}" != TRACE
    processes = [span for span in spans_made if span.name.startswith("process")]
    for process in processes:
        assert process.parent is None
        (link,) = process.links
        assert f"{link.context.trace_id:032x}" == TRACE
        assert f"{link.context.span_id:016x}" == PUBLISH
    others = [span for span in spans_made if not span.name.startswith("process")]
    ids = {process.context.span_id for process in processes}
    assert len(ids) == 2
    assert {span.parent.span_id for span in others} == ids


@pytest.mark.parametrize("first_trace", [UNSAMPLED, "00-zz"])
def test_a_replay_of_what_nobody_traced_is_not_traced(intake, exporter, first_trace):
    claimed = run("", "", first_trace)
    intake.claimed([claimed], 1, 2)
    assert intake.context(claimed) == ""
    intake.settled([Settlement(claimed, Outcome())], 3, 4)
    assert finished(intake, exporter) == {}


def test_without_an_exporter_nothing_is_remembered():
    silent = IntakeSpans(None, Resource.create(), "workers")
    claimed = run()
    silent.claimed([claimed], 1, 2)
    silent.settled([Settlement(claimed, Outcome())], 3, 4)
    assert silent.context(claimed) == ""
    silent.close()


def test_a_slow_collector_loses_spans_and_not_events(monkeypatch):
    monkeypatch.setattr(span_queue, "ROOM_TIMEOUT", 0.01)
    asked, released = threading.Event(), threading.Event()

    class Slow(InMemorySpanExporter):
        def export(self, spans):
            asked.set()
            released.wait(30)
            return super().export(spans)

    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "30")
    slow = Slow()
    intake = IntakeSpans(slow, Resource.create(), "workers")
    for _ in range(100):
        claimed = run()
        intake.claimed([claimed], 1, 2)
        intake.settled([Settlement(claimed, Outcome())], 3, 4)
    assert len(intake._open) == 0
    assert asked.wait(10)
    released.set()
    intake.close()
    assert intake.lost > 0
    assert len(slow.get_finished_spans()) + intake.lost == 300
