"""A small OTLP/HTTP receiver that keeps spans in memory, to see a trace across processes.

It serves from a thread of its own, so that exporters of the same process may flush into it. The
oldest spans are dropped first.
"""

from __future__ import annotations

import gzip
import sys
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, Self

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

PATH = "/v1/traces"
SPANS = 100_000
"""Kept by default."""


@dataclass(frozen=True, slots=True)
class LocalSpan:
    """One finished span. Ids are hex as in traceparent; times are Unix seconds."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    name: str
    service: str
    """`service.name` of the process that made it."""
    start: float
    end: float
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace id and span id of each."""
    error: str | None
    """The description of an error status, possibly empty; None: no error."""


class LocalCollector:
    """`with LocalCollector() as collector:` receives at `collector.url` until the block ends.

    Give `url` to a process as `OTEL_EXPORTER_OTLP_ENDPOINT`.

    Args:
        spans: how many to keep.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, spans: int = SPANS) -> None:
        self._spans: deque[LocalSpan] = deque(maxlen=spans)
        self._server = _Server((host, port), _receiver(self._spans))
        self._thread = threading.Thread(target=self._serve, name="local-collector", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The OTLP endpoint, without `/v1/traces`."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def spans(self, trace_id: str | None = None) -> list[LocalSpan]:
        """The spans of one trace, or all, by start."""
        kept = [span for span in list(self._spans) if trace_id in (None, span.trace_id)]
        return sorted(kept, key=lambda span: span.start)

    def tree(self, trace_id: str) -> str:
        """One trace as an indented tree: milliseconds since its start, name, duration, service."""
        spans = self.spans(trace_id)
        known = {span.span_id for span in spans}
        children: dict[str, list[LocalSpan]] = {}
        for span in spans:
            # A span whose parent has not arrived is shown as a root, rather than not at all.
            parent = span.parent_id if span.parent_id in known else ""
            children.setdefault(parent, []).append(span)
        return "\n".join(_lines(children, "", 0, spans[0].start if spans else 0.0))

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a process that is killed before it has its answer; the demo kills one."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _lines(
    children: Mapping[str, list[LocalSpan]], parent_id: str, depth: int, epoch: float
) -> Iterator[str]:
    for span in children.get(parent_id, ()):
        since, took = (span.start - epoch) * 1000, (span.end - span.start) * 1000
        mark = "" if span.error is None else f"  ! {span.error or 'error'}"
        yield f"{since:8.1f} ms  {'  ' * depth}{span.name}  {took:.1f} ms  [{span.service}]{mark}"
        yield from _lines(children, span.span_id, depth + 1, epoch)


def _receiver(spans: deque[LocalSpan]) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = _receive(self.path, self.headers.get("Content-Encoding", ""), body, spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing about requests."""

    return Receiver


def _receive(path: str, encoding: str, body: bytes, spans: deque[LocalSpan]) -> int:
    """Keep the spans of one export; the HTTP status to answer with."""
    if path != PATH:
        return 404
    try:
        plain = gzip.decompress(body) if encoding == "gzip" else body
        spans.extend(decode(plain))
    except (OSError, EOFError, zlib.error, DecodeError):
        return 400
    return 200


def decode(body: bytes) -> list[LocalSpan]:
    """The spans of an OTLP ExportTraceServiceRequest.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, str(_values(resource.resource.attributes).get("service.name", "")))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: trace_pb2.Span, service: str) -> LocalSpan:
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return LocalSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        service=service,
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        attributes=MappingProxyType(_values(span.attributes)),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        error=span.status.message if failed else None,
    )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(each) for each in value.array_value.values)
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return getattr(value, kind) if kind else None
