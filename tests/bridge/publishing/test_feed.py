"""From delivery to entry to ack, with a publisher that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from flybridge.bridge.protocol import frames
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.publishing.counters import Counters
from flybridge.bridge.publishing.feed import Feed
from flybridge.bridge.publishing.results import Done, Published, PublishRefused
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.bridge.telemetry.tracing import parse_context

TERM = 7


class Publisher:
    """Keeps what it is given and answers at once."""

    def __init__(self, result: Published | PublishRefused) -> None:
        self.result = result
        self.entries: list[Entry] = []
        self.buried: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.options: list[dict[str, Any]] = []

    def submit(self, entry: Entry, done: Done) -> None:
        self.entries.append(entry)
        done(self.result)

    def bury(
        self, reason: str, payload: bytes, fields: Mapping[str, str], done: Done, **options: Any
    ) -> None:
        self.buried.append((reason, payload, fields))
        self.options.append(options)
        done(self.result)


class Connection:
    def __init__(self) -> None:
        self.acks: list[tuple[Delivery, int, bytes | None]] = []

    def ack(self, delivery: Delivery, code: int, data: bytes | None = None) -> None:
        self.acks.append((delivery, code, data))


class Setup:
    def __init__(
        self, keys: Keys, result: Published | PublishRefused | None = None, **options: Any
    ) -> None:
        self.publisher = Publisher(result or Published("5-0"))
        self.connection = Connection()
        self.counters = Counters()
        clock = {"clock": lambda: 100.3, "wall": lambda: 1_700_000_000.5}
        around: Any = (self.publisher, keys, self.counters, self.connection, TERM)
        self.feed = Feed(*around, **clock, **options)  # type: ignore[arg-type]

    @property
    def codes(self) -> list[int]:
        return [code for _, code, _ in self.connection.acks]


def delivery(payload: bytes, kind: str = "event") -> Delivery:
    frame = frames.new(service=1, method=frames.DATA, headers={"type": kind})
    return Delivery(frame, kind, payload, "m1", "t1", 100.0)


def envelope(event_type: str = "im.message.receive_v1") -> bytes:
    header = {
        "event_id": "e1", "event_type": event_type, "app_id": "cli_test",
        "tenant_key": "tenant", "create_time": "1700000000000",
    }  # fmt: skip
    return json.dumps({"schema": "2.0", "header": header, "event": {"a": 1}}).encode()


def test_an_event_is_published_untouched_under_the_term_and_then_acked(keys: Keys) -> None:
    setup = Setup(keys)
    pushed = delivery(envelope())
    setup.feed.take(pushed)
    (entry,) = setup.publisher.entries
    assert entry == Entry(
        event_id="e1", event_type="im.message.receive_v1", app_id="cli_test",
        tenant_key="tenant", schema="2.0", created_at=1_700_000_000_000,
        received_at=1_700_000_000_500, term=TERM, traceparent="", tracestate="",
        envelope=envelope(),
    )  # fmt: skip
    assert setup.connection.acks == [(pushed, 200, None)]
    assert setup.counters.outcomes == {"published": 1}
    assert setup.counters.ack_times.total == pytest.approx(0.3)
    assert setup.counters.ack_times.counts[3] == 1, "0.25 to 0.5 s"


def test_an_event_that_redis_has_already_is_acked_as_well(keys: Keys) -> None:
    setup = Setup(keys, Published("5-0", duplicate=True))
    setup.feed.take(delivery(envelope()))
    assert setup.codes == [200]
    assert setup.counters.outcomes == {"duplicate": 1}


@pytest.mark.parametrize("reason", ["redis", "timeout"])
def test_what_redis_did_not_take_is_answered_with_500_so_that_feishu_sends_it_again(
    keys: Keys, reason: Any
) -> None:
    setup = Setup(keys, PublishRefused(reason))
    setup.feed.take(delivery(envelope()))
    assert setup.codes == [500]
    assert setup.counters.outcomes == {reason: 1}


def test_a_fenced_event_is_not_answered(keys: Keys) -> None:
    setup = Setup(keys, PublishRefused("fenced"))
    setup.feed.take(delivery(envelope()))
    assert setup.codes == []
    assert setup.counters.outcomes == {"fenced": 1}


@pytest.mark.parametrize("event_type", ["card.action.trigger", "url.preview.get"])
def test_a_callback_gets_an_empty_result(keys: Keys, event_type: str) -> None:
    setup = Setup(keys)
    setup.feed.take(delivery(envelope(event_type)))
    assert len(setup.publisher.entries) == 1
    assert [(code, data) for _, code, data in setup.connection.acks] == [(200, b"{}")]


@pytest.mark.parametrize(
    ("payload", "reason"), [(b"\xff", "decode"), (b"{}", "schema"), (b"{", "decode")]
)
def test_what_is_no_envelope_is_buried_with_the_reason_and_acked(
    keys: Keys, payload: bytes, reason: str
) -> None:
    setup = Setup(keys)
    setup.feed.take(delivery(payload))
    ((buried, kept, fields),) = setup.publisher.buried
    assert (buried, kept) == (reason, payload)
    assert fields["message_id"] == "m1"
    assert fields["received_at"] == "1700000000500"
    assert setup.codes == [200]
    assert setup.counters.outcomes == {"buried": 1}


def test_a_push_of_the_legacy_callback_channel_is_buried_and_acked(keys: Keys) -> None:
    setup = Setup(keys)
    setup.feed.take(delivery(envelope(), kind="card"))
    assert [reason for reason, _, _ in setup.publisher.buried] == ["card"]
    assert setup.publisher.entries == []
    assert setup.codes == [200]


def test_a_burial_that_failed_is_answered_with_500(keys: Keys) -> None:
    setup = Setup(keys, PublishRefused("letters_full"))
    with capture_logs() as logs:
        setup.feed.take(delivery(b"\xff"))
    assert setup.codes == [500]
    assert setup.counters.outcomes == {"letters_full": 1}
    assert logs == [], "nothing was buried"


def test_what_is_acked_is_kept_whole_and_once_what_is_not_in_part(keys: Keys) -> None:
    setup = Setup(keys)
    for pushed in (delivery(b"\xff"), delivery(b"\xff"), None):
        if pushed:
            setup.feed.take(pushed)
        else:
            setup.feed.reject(Rejected("invalid", b"\xff", {}, None))
    first, second, third = setup.publisher.options
    assert first == second
    assert first["identity"]
    assert "longest" not in first
    assert third == {"identity": "", "longest": 65_536}


def test_a_frame_that_is_lost_because_nobody_can_ask_for_it_again_is_counted(keys: Keys) -> None:
    setup = Setup(keys, PublishRefused("letters_full"))
    setup.feed.reject(Rejected("invalid", b"x", {}, None))
    assert setup.codes == []
    assert setup.counters.outcomes == {"letters_full": 1}


@pytest.mark.parametrize("acked", [True, False])
def test_a_rejected_frame_is_buried_and_acked_only_if_there_is_something_to_ack(
    keys: Keys, *, acked: bool
) -> None:
    setup = Setup(keys)
    push = delivery(b"x") if acked else None
    setup.feed.reject(Rejected("type_unknown", b"x", {"type": "odd"}, push))
    assert [reason for reason, _, _ in setup.publisher.buried] == ["type_unknown"]
    assert setup.codes == ([200] if acked else [])


class TestSpans:
    @pytest.fixture
    def spans(self, monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
        return exporter

    def test_the_entry_carries_the_publish_span_whose_parent_is_the_root(
        self, keys: Keys, spans: InMemorySpanExporter
    ) -> None:
        setup = Setup(keys, traced=True)
        setup.feed.take(delivery(envelope()))
        publish, receive = spans.get_finished_spans()
        assert receive.name == "receive feishu"
        assert receive.parent is None
        assert publish.name == f"publish {keys.stream('im.message.receive_v1')}"
        assert publish.parent is not None
        assert publish.parent.span_id == receive.context.span_id
        carried = parse_context(setup.publisher.entries[0].traceparent, "")
        assert carried is not None
        assert (carried.trace_id, carried.span_id) == (
            publish.context.trace_id,
            publish.context.span_id,
        )

    def test_the_root_starts_when_the_frame_came_in(
        self, keys: Keys, spans: InMemorySpanExporter
    ) -> None:
        Setup(keys, traced=True).feed.take(delivery(envelope()))
        publish, receive = spans.get_finished_spans()
        assert publish.start_time - receive.start_time >= 290_000_000

    def test_a_refusal_is_an_error_of_both(self, keys: Keys, spans: InMemorySpanExporter) -> None:
        Setup(keys, PublishRefused("redis"), traced=True).feed.take(delivery(envelope()))
        publish, receive = spans.get_finished_spans()
        assert (publish.attributes or {})["error.type"] == "redis"
        assert (receive.attributes or {})["feishu.ack.code"] == 500
        assert not publish.status.is_ok
        assert not receive.status.is_ok

    def test_without_tracing_nothing_is_made(self, keys: Keys, spans: InMemorySpanExporter) -> None:
        Setup(keys).feed.take(delivery(envelope()))
        assert spans.get_finished_spans() == ()
