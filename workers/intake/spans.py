"""The spans that a worker's main process makes of an event: process, claim and settle.

A tracer provider does not survive the fork of a prefork worker. So the main process has none: it
makes finished spans by hand, and a thread exports them. Nothing is made where nothing is exported,
or the bridge did not sample the event.

A replayed event begins a trace of its own, linked to its first one: the replay may come days later,
and a trace store takes no more spans for a trace that old.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from flybridge.bridge.telemetry import semconv, tracing
from flybridge.bridge.telemetry.span_queue import SpanQueue
from flybridge.workers.claim.claims import Pending, Run, Settlement


@dataclass(frozen=True, slots=True)
class Tracing:
    """The process span of one claimed event, open until its settlement."""

    parent: SpanContext | None
    """None for a replayed event."""
    process: SpanContext
    started: int
    links: tuple[Link, ...] = ()

    @property
    def traceparent(self) -> str:
        """The process span as the parent of the handlers' spans."""
        context = self.process
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class IntakeSpans:
    """Process, claim and settle spans of one worker. Times are Unix nanoseconds.

    Args:
        exporter: where to; None makes every method a no-op.
    """

    def __init__(self, exporter: SpanExporter | None, resource: Resource, group: str) -> None:
        self._queue = SpanQueue(exporter) if exporter else None
        self._resource = resource
        self._group = group
        self._open: dict[str, Tracing] = {}

    @property
    def lost(self) -> int:
        """Spans that never came to the collector, as far as this process knows."""
        return self._queue.lost if self._queue else 0

    def claimed(self, runs: Sequence[Run], started: int, ended: int) -> None:
        """Begin the spans of events that were claimed in bulk."""
        if self._queue is None:
            return
        for run in runs:
            tracing = _begin(run.pending, started)
            if tracing is None:
                continue
            self._open[run.token] = tracing
            attributes: dict[str, str | int] = {
                semconv.ATTEMPT: run.attempt,
                semconv.CLAIM_RESULT: "run",
            }
            self._add(
                semconv.SPAN_CLAIM,
                _child(tracing.process),
                tracing.process,
                started,
                ended,
                attributes,
            )

    def context(self, run: Run) -> str:
        """The traceparent to give to the child; empty when the event is not traced."""
        tracing = self._open.get(run.token)
        return tracing.traceparent if tracing else ""

    def settled(self, settlements: Sequence[Settlement], started: int, ended: int) -> None:
        """End the spans of attempts that were settled in bulk."""
        if self._queue is None:
            return
        for settlement in settlements:
            tracing = self._open.pop(settlement.run.token, None)
            if tracing is None:
                continue
            outcome = settlement.outcome
            verdict = {semconv.VERDICT: outcome.verdict}
            self._add(
                semconv.SPAN_SETTLE,
                _child(tracing.process),
                tracing.process,
                started,
                ended,
                verdict,
            )
            pending = settlement.run.pending
            attributes = {
                **verdict,
                semconv.MESSAGING_SYSTEM: semconv.SYSTEM_REDIS,
                semconv.MESSAGING_OPERATION_NAME: "process",
                semconv.MESSAGING_OPERATION_TYPE: semconv.OPERATION_PROCESS,
                semconv.MESSAGING_DESTINATION_NAME: pending.stream,
                semconv.MESSAGING_CONSUMER_GROUP: self._group,
                semconv.MESSAGING_MESSAGE_ID: pending.entry_id,
                semconv.EVENT_ID: pending.entry.event_id,
                semconv.EVENT_TYPE: pending.entry.event_type,
                semconv.ATTEMPT: settlement.run.attempt,
            }
            self._add(
                semconv.SPAN_PROCESS + pending.stream,
                tracing.process,
                tracing.parent,
                tracing.started,
                ended,
                attributes,
                kind=SpanKind.CONSUMER,
                links=tracing.links,
                error=outcome.failed[0].error if outcome.failed else outcome.error,
            )

    def close(self) -> None:
        """Export what is waiting, within the queue's flush budget."""
        if self._queue:
            self._queue.shutdown()

    def _add(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        started: int,
        ended: int,
        attributes: Mapping[str, str | int],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: tuple[Link, ...] = (),
        error: str = "",
    ) -> None:
        if self._queue is None:
            return
        span = ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            links=links,
            status=Status(StatusCode.ERROR, error) if error else Status(),
            start_time=started,
            end_time=ended,
        )
        # Events are handled faster than a collector takes their spans; dropping some would leave
        # incomplete traces.
        self._queue.wait_for_room()
        self._queue.on_end(span)


def _begin(pending: Pending, started: int) -> Tracing | None:
    """The process span of an attempt; None where the event is not traced."""
    entry = pending.entry
    parent = tracing.parse_context(entry.traceparent, entry.tracestate)
    if parent is not None:
        return Tracing(parent, _child(parent), started) if parent.trace_flags.sampled else None
    first = tracing.parse_context(entry.first_trace, "")
    if first is None or not first.trace_flags.sampled:
        return None
    root = _child(_replay_trace(pending, first))
    return Tracing(None, root, started, (Link(first),))


def _replay_trace(pending: Pending, first: SpanContext) -> SpanContext:
    """The trace of a replay: the same for all its attempts, whichever worker makes them."""
    place = f"{pending.stream} {pending.entry_id}".encode()
    trace_id = int.from_bytes(hashlib.sha256(place).digest()[:16], "big")
    return SpanContext(trace_id, first.span_id, False, first.trace_flags)


def _child(parent: SpanContext) -> SpanContext:
    return SpanContext(
        parent.trace_id, secrets.randbits(64) or 1, False, parent.trace_flags, parent.trace_state
    )
