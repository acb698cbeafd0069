from __future__ import annotations

import gzip
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, Status, StatusCode, set_span_in_context

from flybridge.bridge.local.collector import LocalCollector
from tests.waiting import until


@pytest.fixture
def collector() -> Iterator[LocalCollector]:
    with LocalCollector() as running:
        yield running


def provider(
    collector: LocalCollector, service: str, compression: Compression = Compression.NoCompression
) -> TracerProvider:
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces", compression=compression)
    made = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_spans_of_the_real_exporter_are_kept(
    collector: LocalCollector, compression: Compression
) -> None:
    source = provider(collector, "flybridge-bridge", compression)
    span = source.get_tracer("t").start_span("receive feishu", attributes={"a": 1, "b": ("x", "y")})
    span.set_status(Status(StatusCode.ERROR, "boom"))
    span.end()
    source.shutdown()

    (kept,) = collector.spans()

    context = span.get_span_context()
    assert (kept.trace_id, kept.span_id) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert (kept.name, kept.service, kept.parent_id) == ("receive feishu", "flybridge-bridge", "")
    assert dict(kept.attributes) == {"a": 1, "b": ("x", "y")}
    assert kept.error == "boom"
    assert 0 <= kept.end - kept.start < 10


def test_the_tree_shows_one_trace_across_services(collector: LocalCollector) -> None:
    bridge, workers = provider(collector, "bridge"), provider(collector, "workers")
    root = bridge.get_tracer("t").start_span("receive feishu", start_time=1_000_000_000)
    inside = set_span_in_context(root)
    process = workers.get_tracer("t").start_span("process", inside, start_time=1_002_000_000)
    handle = workers.get_tracer("t").start_span(
        "handle Greet", set_span_in_context(process), start_time=1_003_000_000
    )
    handle.set_status(Status(StatusCode.ERROR, "no such chat"))
    handle.end(1_004_500_000)
    process.end(1_005_000_000)
    root.end(1_001_500_000)
    other = bridge.get_tracer("t").start_span("another trace")
    other.end()
    for source in (bridge, workers):
        source.shutdown()

    tree = collector.tree(f"{root.get_span_context().trace_id:032x}")

    assert tree.splitlines() == [
        "     0.0 ms  receive feishu  1.5 ms  [bridge]",
        "     2.0 ms    process  3.0 ms  [workers]",
        "     3.0 ms      handle Greet  1.5 ms  [workers]  ! no such chat",
    ]


def test_links_and_orphans_are_kept(collector: LocalCollector) -> None:
    source = provider(collector, "workers")
    tracer = source.get_tracer("t")
    parent = tracer.start_span("never exported")
    linked = Link(parent.get_span_context())
    child = tracer.start_span("orphan", set_span_in_context(parent), links=[linked])
    child.end()
    source.shutdown()

    (kept,) = collector.spans()

    assert kept.links == ((kept.trace_id, kept.parent_id),)
    assert "orphan" in collector.tree(kept.trace_id)


def test_an_unknown_trace_is_an_empty_tree(collector: LocalCollector) -> None:
    assert collector.tree("0" * 32) == ""


def test_the_oldest_spans_are_forgotten_first() -> None:
    with LocalCollector(spans=2) as collector:
        source = provider(collector, "s")
        for name in ("first", "second", "third"):
            source.get_tracer("t").start_span(name).end()
        source.shutdown()
        assert [span.name for span in collector.spans()] == ["second", "third"]


@pytest.mark.parametrize(
    ("path", "body", "encoding", "status"),
    [
        ("/v1/metrics", b"", "", 404),
        ("/v1/traces", b"\xff\xff", "", 400),
        ("/v1/traces", b"no gzip", "gzip", 400),
        ("/v1/traces", gzip.compress(b"\xff\xff", mtime=0), "gzip", 400),
        ("/v1/traces", gzip.compress(b"x" * 100, mtime=0)[:-12], "gzip", 400),
        ("/v1/traces", gzip.compress(b"x" * 100, mtime=0)[:10] + b"\xff" * 20, "gzip", 400),
    ],
)
def test_what_is_no_export_is_refused(
    collector: LocalCollector, path: str, body: bytes, encoding: str, status: int
) -> None:
    request = urllib.request.Request(collector.url + path, body)  # noqa: S310 (our own server)
    request.add_header("Content-Encoding", encoding)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)  # noqa: S310
    refused.value.close()
    assert refused.value.code == status
    assert collector.spans() == []


def test_nothing_is_said_of_an_exporter_that_is_killed(
    collector: LocalCollector, capfd: pytest.CaptureFixture[str]
) -> None:
    def answering() -> bool:
        return any("process_request" in each.name for each in threading.enumerate())

    with socket.create_connection(collector.url.removeprefix("http://").split(":")) as exporter:
        exporter.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        until(answering)
        # Closed like this, the other side sees a reset.
        exporter.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not answering())

    assert capfd.readouterr().err == ""
