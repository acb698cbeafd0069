"""Publishes what one connection delivers, and acks it.

Ack 200: Redis holds the event, or its dead letter. Ack 500: Redis did not take it in time, and
Feishu sends it again. No ack: another bridge leads by now, and this socket is about to close.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from flybridge.bridge.errors import EnvelopeInvalid
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.envelope import Header, header
from flybridge.bridge.publishing.counters import Counters
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.bridge.publishing.results import Published, PublishRefused
from flybridge.bridge.publishing.spans import EventSpans, begin
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers.loggers import get_logger

CALLBACKS = frozenset({"card.action.trigger", "url.preview.get"})
"""Feishu: these want a result in the ack. An empty result leaves a card unchanged."""

NO_RESULT = b"{}"

UNACKED_PAYLOAD = 65_536
"""Bytes that are kept of a frame that gets no ack; other frames are kept whole."""

log = get_logger(__name__)


class Acker(Protocol):
    """The part of a connection that a feed needs."""

    def ack(self, delivery: Delivery, code: int, data: bytes | None = None) -> object:
        """Answer a delivery; `data` is the JSON of a callback's result."""


class Feed:
    """Publishes what one connection delivers, and acks it there.

    Args:
        term: of the leadership under which the connection was made; it goes into every entry.
        traced: whether spans are made.
        clock: the clock of `Delivery.received`.
        wall: Unix seconds.
    """

    def __init__(
        self,
        publisher: Publisher,
        keys: Keys,
        counters: Counters,
        connection: Acker,
        term: int,
        *,
        traced: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._publisher, self._keys, self._counters = publisher, keys, counters
        self._connection, self._term = connection, term
        self._traced, self._clock, self._wall = traced, clock, wall

    def take(self, delivery: Delivery) -> None:
        """Publish a delivery; its ack follows once Redis has answered."""
        if delivery.kind == "card":
            self._bury(
                delivery, "card", "a callback of the legacy channel; use card.action.trigger"
            )
            return
        try:
            found = header(delivery.payload)
        except EnvelopeInvalid as invalid:
            self._bury(delivery, invalid.reason, str(invalid))
            return
        spans = self._spans(delivery, found) if self._traced else None
        entry = self._entry(delivery, found, *(spans.context() if spans else ("", "")))
        self._publisher.submit(entry, partial(self._published, delivery, found.event_type, spans))

    def reject(self, rejected: Rejected) -> None:
        """Keep a frame that makes no delivery as a dead letter; ack it if it can be acked."""
        headers = repr(dict(rejected.headers))
        fields = {"error": "the frame makes no delivery", "headers": headers}
        delivery, payload = rejected.delivery, rejected.payload
        done = partial(self._buried, rejected.reason, len(payload), delivery)
        self._publisher.bury(
            rejected.reason, payload, self._stamped(fields), done,
            identity=_digest(payload, headers) if delivery else "",
            longest=None if delivery else UNACKED_PAYLOAD,
        )  # fmt: skip

    def _entry(self, delivery: Delivery, found: Header, traceparent: str, tracestate: str) -> Entry:
        return Entry(
            event_id=found.event_id,
            event_type=found.event_type,
            app_id=found.app_id,
            tenant_key=found.tenant_key,
            schema=found.schema,
            created_at=found.created_at,
            received_at=int(self._wall() * 1000),
            term=self._term,
            traceparent=traceparent,
            tracestate=tracestate,
            envelope=delivery.payload,
        )

    def _published(
        self,
        delivery: Delivery,
        event_type: str,
        spans: EventSpans | None,
        result: Published | PublishRefused,
    ) -> None:
        if isinstance(result, PublishRefused):
            code = self._refused(delivery, result)
            if spans is not None:
                spans.end(code, error=result.reason)
            return
        self._counters.outcomes["duplicate" if result.duplicate else "published"] += 1
        self._ack(delivery, 200, NO_RESULT if event_type in CALLBACKS else None)
        if spans is not None:
            spans.end(200, entry_id=result.entry_id, duplicate=result.duplicate)

    def _refused(self, delivery: Delivery | None, refusal: PublishRefused) -> int:
        """Count a refusal, and answer 500 if possible. Returns the code, 0 for no ack."""
        self._counters.outcomes[refusal.reason] += 1
        if delivery is None or refusal.reason == "fenced":
            return 0
        self._ack(delivery, 500)
        return 500

    def _bury(self, delivery: Delivery, reason: str, error: str) -> None:
        fields = {"error": error, "message_id": delivery.message_id, "trace_id": delivery.trace_id}
        payload = delivery.payload
        done = partial(self._buried, reason, len(payload), delivery)
        self._publisher.bury(
            reason, payload, self._stamped(fields), done, identity=_digest(payload)
        )

    def _buried(
        self,
        reason: str,
        size: int,
        delivery: Delivery | None,
        result: Published | PublishRefused,
    ) -> None:
        if isinstance(result, PublishRefused):
            self._refused(delivery, result)
            return
        self._counters.outcomes["duplicate" if result.duplicate else "buried"] += 1
        if delivery is not None:
            log.warning("event.buried", reason=reason, size=size)
            self._ack(delivery, 200)

    def _ack(self, delivery: Delivery, code: int, data: bytes | None = None) -> None:
        self._connection.ack(delivery, code, data)
        self._counters.ack_times.add(self._clock() - delivery.received)

    def _stamped(self, fields: dict[str, str]) -> dict[str, str]:
        return {**fields, "received_at": str(int(self._wall() * 1000)), "term": str(self._term)}

    def _spans(self, delivery: Delivery, found: Header) -> EventSpans:
        stream = self._keys.stream(found.event_type)
        waited = self._clock() - delivery.received
        return begin(delivery, found, stream, self._term, waited)


def _digest(payload: bytes, headers: str = "") -> str:
    """A digest that is the same for every push of one event, whatever can be read of it."""
    return hashlib.sha256(payload + headers.encode(errors="replace")).hexdigest()
