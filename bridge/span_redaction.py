"""Takes secrets out of finished spans: out of status, events, attributes and links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Status

from bridge import semconv
from bridge.redaction import Redactor, redactor


def redacted(span: ReadableSpan) -> ReadableSpan:
    """The span itself if nobody but Flybridge wrote into it, else a copy without secrets."""
    if _is_plain(span):
        return span
    known = redactor()
    return ReadableSpan(
        name=known.text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_clean(span.attributes, known),
        events=[
            Event(known.text(each.name), _clean(each.attributes, known), each.timestamp)
            for each in span.events
        ],
        links=[Link(each.context, _clean(each.attributes, known)) for each in span.links],
        kind=span.kind,
        status=_clean_status(span.status, known),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _is_plain(span: ReadableSpan) -> bool:
    """Whether it holds ids and numbers of ours only; most spans do, and copies cost time."""
    scope = span.instrumentation_scope
    is_ours = scope is None or scope.name == semconv.SCOPE_BRIDGE
    return is_ours and not span.events and not span.status.description


def _clean(attributes: Mapping[str, Any] | None, known: Redactor) -> dict[str, Any]:
    return {name: known.field(name, value) for name, value in (attributes or {}).items()}


def _clean_status(status: Status, known: Redactor) -> Status:
    text = status.description
    return Status(status.status_code, known.text(text) if text else None)
