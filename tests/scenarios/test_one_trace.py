"""Promise 6: one trace shows an event's whole way through every process."""

from __future__ import annotations

import signal
import urllib.request

import pytest

from flybridge.bridge.local.collector import LocalCollector, LocalSpan
from tests.scenarios.ops_port import free_port
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

STREAM = "flybridge:{cli_a1b2c3d4e5f60718}:events:im.message.receive_v1"

PARENTS = {
    "receive feishu": "",
    f"publish {STREAM}": "receive feishu",
    f"process {STREAM}": f"publish {STREAM}",
    "claim": f"process {STREAM}",
    "handle acting:act": f"process {STREAM}",
    "settle": f"process {STREAM}",
}
"""Span -> parent."""

SERVICES = {
    name: "flybridge-bridge" if name.startswith(("receive", "publish")) else "flybridge-worker"
    for name in PARENTS
}


def parents(spans: list[LocalSpan]) -> dict[str, str]:
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_id, span.parent_id) for span in spans}


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
async def test_one_trace_shows_an_event_from_the_frame_to_the_settlement(
    stage: Stage, pool: str
) -> None:
    with LocalCollector() as collector:
        await stage.bridge_and_worker(
            "--pool", pool, "--concurrency", "2", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
        )

        (event_id,) = stage.push(message())

        await stage.settled([event_id])
        (entry,) = stage.entries()
        trace_id = entry["traceparent"].split("-")[1]
        await eventually(lambda: len(collector.spans(trace_id)) >= len(PARENTS))
        spans = collector.spans(trace_id)
    assert parents(spans) == PARENTS
    assert {span.name: span.service for span in spans} == SERVICES
    assert all(span.error is None for span in spans)
    process = next(span for span in spans if span.name.startswith("process"))
    assert process.attributes["feishu.event_id"] == event_id


async def test_every_attempt_and_its_failure_is_in_the_trace_of_the_event(stage: Stage) -> None:
    with LocalCollector() as collector:
        await stage.bridge_and_worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)

        (event_id,) = stage.push(message("fail 1"))

        await stage.settled([event_id])
        (entry,) = stage.entries()
        trace_id = entry["traceparent"].split("-")[1]
        of_worker = [name for name, service in SERVICES.items() if service == "flybridge-worker"]
        await eventually(lambda: len(collector.spans(trace_id)) >= 2 + 2 * len(of_worker))
        spans = collector.spans(trace_id)
    handled = [span.error for span in spans if span.name == "handle acting:act"]
    assert handled == ["ValueError: the play says so", None]
    process = [span for span in spans if span.name.startswith("process")]
    assert [span.attributes["feishu.attempt"] for span in process] == [1, 2]
    assert [span.attributes["feishu.verdict"] for span in process] == ["retry", "done"]


async def test_nothing_is_traced_unless_opentelemetry_is_asked_for(stage: Stage) -> None:
    await stage.bridge_and_worker()

    event_ids = stage.push(message())

    await stage.settled(event_ids)
    (entry,) = stage.entries()
    assert entry["traceparent"] == entry["tracestate"] == ""
    assert not [line for actor in stage.actors for line in actor.lines("telemetry.started")]


async def test_no_trace_is_torn_by_a_burst_that_is_larger_than_the_queue(stage: Stage) -> None:
    with LocalCollector() as collector:
        exported = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_MAX_QUEUE_SIZE": "96"}
        await stage.leader(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        event_ids = stage.push(*(message() for _ in range(300)))
        await eventually(lambda: len(stage.entries()) == len(event_ids))

        worker = await stage.ready_worker("worker-1", "--pool", "threads", **exported)
        await stage.settled(event_ids)
        worker.send(signal.SIGTERM)
        await worker.ended()

        spans = collector.spans()
    processed = {
        span.attributes["feishu.event_id"] for span in spans if span.name.startswith("process")
    }
    assert processed == set(event_ids)
    handled = [span for span in spans if span.name.startswith("handle")]
    lost = sum(line["spans"] for line in worker.lines("telemetry.spans_lost"))
    assert len(handled) + lost == len(event_ids)


async def test_spans_that_no_collector_takes_are_counted_and_events_flow(stage: Stage) -> None:
    port, ops = free_port(), free_port()
    nowhere = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    worker = await stage.bridge_and_worker("--pool", "threads", ops_port=ops, **nowhere)

    event_ids = stage.push(*(message() for _ in range(5)))

    await stage.settled(event_ids)
    lost = await worker.logged("telemetry.spans_lost")
    assert lost["spans"] > 0
    assert "collector" in lost["cure"]
    name = "feishu_bridge_spans_lost_total"
    await eventually(lambda: value_of(ops, name) > 0)


def value_of(port: int, metric: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{metric}{{"))
