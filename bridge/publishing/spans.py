"""The two spans of an event in the bridge. None are made unless traces are exported."""

from __future__ import annotations

import time
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from flybridge.bridge.protocol.delivery import Delivery
from flybridge.bridge.protocol.envelope import Header
from flybridge.bridge.telemetry import semconv
from flybridge.bridge.telemetry.tracing import format_context


@dataclass(frozen=True, slots=True)
class EventSpans:
    """The root `receive feishu`, and its child `publish <stream>`, whose context goes into the
    entry.
    """

    receive: Span
    publish: Span

    def context(self) -> tuple[str, str]:
        """`traceparent` and `tracestate` for the entry."""
        return format_context(self.publish)

    def end(
        self, code: int, *, entry_id: str = "", duplicate: bool = False, error: str = ""
    ) -> None:
        """End both, with the ack's code (0: no ack), and the entry's id or the error."""
        if error:
            self.publish.set_attribute(semconv.ERROR_TYPE, error)
            self.publish.set_status(Status(StatusCode.ERROR))
            self.receive.set_status(Status(StatusCode.ERROR))
        else:
            self.publish.set_attribute(semconv.MESSAGING_MESSAGE_ID, entry_id)
            self.publish.set_attribute(semconv.DUPLICATE, duplicate)
        self.publish.end()
        self.receive.set_attribute(semconv.ACK_CODE, code)
        self.receive.end()


def begin(delivery: Delivery, header: Header, stream: str, term: int, waited: float) -> EventSpans:
    """Start both spans. The root begins `waited` seconds ago, when the frame came in."""
    tracer = trace.get_tracer(semconv.SCOPE_BRIDGE, schema_url=semconv.SCHEMA_URL)
    receive = tracer.start_span(
        semconv.SPAN_RECEIVE,
        context=Context(),
        kind=SpanKind.CONSUMER,
        start_time=time.time_ns() - round(waited * 1e9),
        attributes={
            semconv.MESSAGING_SYSTEM: semconv.SYSTEM_FEISHU,
            semconv.MESSAGING_OPERATION_NAME: "receive",
            semconv.MESSAGING_OPERATION_TYPE: semconv.OPERATION_PROCESS,
            semconv.MESSAGING_ENVELOPE_SIZE: len(delivery.payload),
            semconv.EVENT_ID: header.event_id,
            semconv.EVENT_TYPE: header.event_type,
            semconv.APP_ID: header.app_id,
            semconv.FEISHU_TRACE_ID: delivery.trace_id,
        },
    )
    publish = tracer.start_span(
        semconv.SPAN_PUBLISH + stream,
        context=trace.set_span_in_context(receive),
        kind=SpanKind.PRODUCER,
        attributes={
            semconv.MESSAGING_SYSTEM: semconv.SYSTEM_REDIS,
            semconv.MESSAGING_OPERATION_NAME: "publish",
            semconv.MESSAGING_OPERATION_TYPE: semconv.OPERATION_SEND,
            semconv.MESSAGING_DESTINATION_NAME: stream,
            semconv.EVENT_ID: header.event_id,
            semconv.TERM: term,
        },
    )
    return EventSpans(receive, publish)
