"""What several threads of a worker use at once, with a thread switch after nearly every step."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flybridge.bridge.protocol.heartbeat import Heartbeat
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.claim.claims import Pending, Run
from flybridge.workers.claim.guard import Guard
from flybridge.workers.group.presence import Presence
from flybridge.workers.inprocess.pool import LoopPool
from flybridge.workers.intake.spans import IntakeSpans
from flybridge.workers.routes.coverage import Coverage
from tests.workers.dispatch.test_dispatcher import CONTACT, DONE, IM, LIMITED, ONCE, Stage
from tests.workers.dispatch.test_dispatcher import run as handed
from tests.workers.hammer import hammer

ENTRY = Entry("ev1", "im.message.receive_v1", "cli_test", "tk", "2.0", 1, 2, 3, "", "", b"{}")


def test_threads_that_claim_at_once_get_tokens_of_their_own(monkeypatch):
    tokens: list[str] = []

    def claim_all(self: Guard, pending: object, given: list[str], plain: list[int]) -> set[int]:
        tokens.extend(given)
        return set(plain)

    monkeypatch.setattr(Guard, "_claim_fresh", claim_all)
    monkeypatch.setattr("flybridge.workers.claim.guard.run_all", lambda redis, calls: [])
    monkeypatch.setattr(
        "flybridge.workers.claim.redis_clock.run_all", lambda redis, calls: [(1, 0, b"")]
    )
    guard = Guard(None, Keys("cli_test"), "workers", event_lease=30, boot="w1")
    items = [Pending("s", f"{number}-0", ENTRY) for number in range(20)]
    hammer(*[lambda: guard.claim(items)] * 3)
    assert len(tokens) == len(set(tokens)) > 100


def test_each_span_is_sent_or_counted_as_lost(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "3")
    monkeypatch.setattr("flybridge.bridge.telemetry.span_queue.ROOM_TIMEOUT", 0.0)
    collector, made = InMemorySpanExporter(), itertools.count()
    spans = IntakeSpans(collector, Resource({}), "workers")
    traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    run = Run(Pending("s", "1-0", replace(ENTRY, traceparent=traced)), "w1:1", 1, {})

    def claim() -> None:
        next(made)
        spans.claimed([run], 1, 2)

    hammer(*[claim] * 3)
    spans.close()
    assert len(collector.get_finished_spans()) + spans.lost == next(made) > 100


def test_one_bucket_limits_a_task_whoever_asks_for_it_first(monkeypatch):
    monkeypatch.setattr("kombu.utils.limits.TokenBucket", SlowBucket)
    routing = SimpleNamespace(routes={"task": SimpleNamespace(rate_limit=1)})
    loop = asyncio.new_event_loop()
    port = loop.run_until_complete(made_on_loop(routing))
    loop.close()
    asked: list[object] = []
    threads = [
        threading.Thread(target=lambda: asked.append(port.bucket_of("task"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [port.bucket_of("task")] * 2


class SlowBucket:
    """One that two threads make at once."""

    both = threading.Barrier(2)

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.both.wait(5)


def test_what_a_group_handles_may_be_told_to_two_threads_at_once():
    presence = Presence(None, Keys("cli_test"), "workers", "c1", None)  # type: ignore[arg-type]
    first, second = (Coverage(queues=(name,)).to_json() for name in "ab")
    hammer(
        lambda: presence._saw({first: 1.0, second: 1.0}),
        lambda: presence._saw({first: 1.0}),
        lambda: [each.coverage.queues for each in presence.sightings],
    )


async def made_on_loop(routing: Any) -> LoopPool:
    return LoopPool(None, routing, 1, lambda: None)  # type: ignore[arg-type]


def test_statistics_may_be_asked_for_while_pongs_come_in():
    heartbeat = Heartbeat()
    heartbeat.started(0.0)
    times = itertools.count(1)

    def beat() -> None:
        heartbeat.pinged(float(next(times)))
        heartbeat.ponged(float(next(times)))

    hammer(beat, *[lambda: heartbeat.statistics(0.0, 0)] * 2)


def test_what_several_threads_claim_and_several_end_is_run_once_each():
    stage = Stage()
    stage.share_a_process()
    stage.consumer.pool.num_processes = 4
    numbers, claimed = itertools.count(), deque[str]()

    def claim() -> None:
        types = (IM, CONTACT, LIMITED, ONCE)
        runs = [handed(str(number), types[number % 4]) for number in itertools.islice(numbers, 5)]
        claimed.extend(run.token for run in runs)
        stage.waiting.add(runs)
        stage.waiting.caps(["s:" + LIMITED, "s:" + IM])
        assert stage.waiting.uncounted >= 0

    def end() -> None:
        with suppress(IndexError):
            request = stage.requests.pop()
            request.finish([DONE] * len(request.runs), 0.0001)

    hammer(claim, claim, end, end, stage.pool.dispatch)
    while stage.hand_over() or stage.requests:
        while stage.requests:
            end()
    ran = [token for token, _ in stage.intake.ends] + stage.intake.given_back
    assert sorted(ran) == sorted(claimed)
    assert stage.pool.requests == 0
