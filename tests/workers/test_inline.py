"""The inline worker: handlers on the caller's loop, with all that the guard promises."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis import Redis

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.errors import Misused, RedisUnreachable, TaskFailed
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers import Context, Event, Middleware, Registry, Reject, Retry
from flybridge.handlers.batch import Batch
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.workers.backlog import quarantine
from flybridge.workers.group.presence import present
from flybridge.workers.inline import InlineWorker
from flybridge.workers.inprocess.live_routes import LiveRoutes
from flybridge.workers.intake.reader import StreamReader
from tests.waiting import eventually

MESSAGE, CONTACT, CHAT = "im.message.receive_v1", "contact.user.created_v3", "im.chat.updated_v1"

APP = "cli_test"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits a second for entries, which every stop would have to wait for."""
    monkeypatch.setattr("flybridge.workers.intake.intake.BLOCK", 0.05)


class Stage:
    """A Redis with events, and the workers of a test."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis, self.url = redis, url
        self.registry = Registry()
        self.workers: list[InlineWorker] = []

    def settings(self, **given: Any) -> WorkerSettings:
        return WorkerSettings(**{"app_id": APP, "redis_url": self.url, **given})

    def worker(
        self, registry: Registry | None = None, *, concurrency: int = 100, **given: Any
    ) -> InlineWorker:
        settings = self.settings(**given)
        made = InlineWorker(settings, registry or self.registry, concurrency=concurrency)
        self.workers.append(made)
        return made

    def publish(
        self, *event_ids: str, event_type: str = MESSAGE, app: str = APP, trace: str = ""
    ) -> None:
        """As the bridge does."""
        keys = Keys(app)
        for event_id in event_ids:
            header = {"event_id": event_id, "event_type": event_type}
            header |= {"app_id": app, "tenant_key": "tk"}
            envelope = json.dumps({"schema": "2.0", "header": header, "event": {}}).encode()
            event = Entry(event_id, event_type, app, "tk", "2.0", 1, 2, 3, trace, "", envelope)
            fields: Any = event.fields()
            pairs = dict(zip(fields[::2], fields[1::2], strict=True))
            self.redis.xadd(keys.stream(event_type), pairs)
            self.redis.sadd(keys.types, event_type)

    def state(self, event_id: str, field: str = "state", group: str = "workers") -> str:
        value: Any = self.redis.hget(Keys(APP).state(group, event_id), field)
        return value.decode() if value else ""

    def done(self, *event_ids: str, group: str = "workers") -> bool:
        return all(self.state(each, group=group) == "done" for each in event_ids)

    def consumers(self, event_type: str = MESSAGE) -> list[str]:
        """Workers that have not left."""
        found: Any = self.redis.xinfo_consumers(Keys(APP).stream(event_type), "workers")
        return [each["name"].decode() for each in found if each["name"].startswith(b"inline@")]


@pytest.fixture
async def stage(redis: Redis, server: EmbeddedRedis) -> AsyncIterator[Stage]:
    stage = Stage(redis, server.url)
    yield stage
    for worker in stage.workers:
        await worker.stop(grace=0)


def test_it_needs_no_celery():
    code = (
        "import sys, flybridge.workers.inline\n"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " ('celery', 'kombu', 'billiard')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_payload_models_are_imported_before_the_first_event():
    code = (
        "import sys, flybridge.workers.inline; print('flybridge.handlers.payloads' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


async def test_it_says_that_it_is_there_until_it_stops(stage):
    async with stage.worker():
        await eventually(lambda: present(stage.redis, Keys(APP), "workers"))
        (worker,) = present(stage.redis, Keys(APP), "workers")
        assert worker.name.startswith("inline@")
        assert {"im", "contact"} <= set(worker.queues)
    assert present(stage.redis, Keys(APP), "workers") == []


async def test_async_handlers_run_on_the_callers_loop_and_others_in_threads(stage):
    places: dict[str, Any] = {}

    async def here(event: Event, context: Context) -> None:
        places["here"] = asyncio.get_running_loop()

    def elsewhere(event: Event, context: Context) -> None:
        places["elsewhere"] = threading.get_ident()

    stage.registry.register(here, MESSAGE)
    stage.registry.register(elsewhere, MESSAGE)
    stage.publish("ev1", "ev2")
    async with stage.worker():
        await eventually(lambda: stage.done("ev1", "ev2"))
    assert places["here"] is asyncio.get_running_loop()
    assert places["elsewhere"] != threading.get_ident()
    assert stage.consumers() == []


async def test_a_generator_exit_costs_no_slot(stage):
    def leave(event: Event, context: Context) -> None:
        raise GeneratorExit

    async def stay(event: Event, context: Context) -> None: ...

    stage.registry.register(leave, MESSAGE, max_attempts=1)
    stage.registry.register(stay, CONTACT)
    stage.publish("ev1")
    async with stage.worker(concurrency=1):
        await eventually(lambda: stage.state("ev1") == "dead")
        stage.publish("ev2", event_type=CONTACT)
        await eventually(lambda: stage.done("ev2"))


async def test_failures_are_tried_again_or_become_dead_letters_with_their_reason(stage):
    attempts: list[tuple[str, int]] = []

    async def moody(event: Event, context: Context) -> None:
        attempts.append((event.id, context.attempt))
        if event.id == "later" and context.attempt == 1:
            raise Retry(after=0.01)
        if event.id == "never":
            raise Reject("it says so")

    stage.registry.register(moody, MESSAGE)
    stage.publish("later", "never")
    async with stage.worker():
        await eventually(lambda: stage.done("later") and stage.state("never") == "dead")
    assert sorted(attempts) == [("later", 1), ("later", 2), ("never", 1)]
    ((_, letter),) = stage.redis.xrange(Keys(APP).dead("workers"))
    assert (letter[b"event_id"], letter[b"reason"]) == (b"never", b"rejected")


async def test_no_more_events_run_at_once_than_it_was_told(stage):
    running, most = 0, 0

    async def count(event: Event, context: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    stage.registry.register(count, MESSAGE)
    events = [f"ev{n}" for n in range(10)]
    stage.publish(*events)
    async with stage.worker(concurrency=3):
        await eventually(lambda: stage.done(*events))
    assert most == 3


async def test_limits_of_a_type_hold_and_keep_no_other_type_waiting(stage):
    begun: dict[str, list[float]] = {MESSAGE: [], CONTACT: [], CHAT: []}
    release = asyncio.Event()

    async def note(event: Event, context: Context) -> None:
        begun[event.type].append(time.monotonic())
        if event.type == CONTACT:
            await release.wait()

    stage.registry.register(note, MESSAGE, name="rated", rate_limit="20/s")
    stage.registry.register(note, CONTACT, name="narrow", concurrency=1)
    stage.registry.register(note, CHAT, name="free")
    stage.publish("a", "b", "c")
    stage.publish("d", "e", event_type=CONTACT)
    stage.publish("f", event_type=CHAT)
    async with stage.worker():
        await eventually(lambda: stage.done("a", "b", "c", "f"))
        assert len(begun[CONTACT]) == 1
        release.set()
        await eventually(lambda: stage.done("d", "e"))
    first, _, third = begun[MESSAGE]
    # 0.1 s of tokens; on a busy machine a handler begins some time after its token was taken.
    assert third - first > 0.06


async def test_handlers_of_one_event_run_in_order_if_that_is_asked_for(stage):
    ran: list[str] = []

    async def slow(event: Event, context: Context) -> None:
        await asyncio.sleep(0.02)
        ran.append("slow")

    async def quick(event: Event, context: Context) -> None:
        ran.append("quick")

    stage.registry.register(slow, MESSAGE)
    stage.registry.register(quick, MESSAGE)
    stage.publish("ev")
    async with stage.worker(parallel_handlers=False):
        await eventually(lambda: stage.done("ev"))
    assert ran == ["slow", "quick"]


async def test_a_batch_handler_gets_its_events_together(stage):
    batches: list[int] = []

    async def together(events: Any, context: Any) -> None:
        batches.append(len(events))

    stage.registry.register(together, MESSAGE, batch=Batch(size=4, wait=5.0))
    events = [f"ev{n}" for n in range(8)]
    stage.publish(*events)
    async with stage.worker():
        await eventually(lambda: stage.done(*events))
    assert batches == [4, 4]


async def test_handlers_may_come_while_it_runs(stage):
    seen: list[str] = []

    async def note(event: Event, context: Context) -> None:
        seen.append(event.id)

    async with stage.worker():
        stage.registry.register(note, "my.own.type_v1", concurrency=1)
        stage.publish("ev", event_type="my.own.type_v1")
        await eventually(lambda: stage.done("ev"))
    assert seen == ["ev"]


async def test_routes_follow_a_registry_that_changes(stage):
    running, most = 0, 0

    async def count(event: Event, context: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    stage.registry.register(count, MESSAGE, name="free")
    async with stage.worker() as worker:
        stage.registry.unregister("free")
        stage.registry.register(count, MESSAGE, name="narrow", concurrency=1)
        routing = worker._run._worker.dispatcher._routing
        await eventually(lambda: routing.concurrency_of(f"feishu.{MESSAGE}") == 1)
        stage.publish("a", "b", "c")
        await eventually(lambda: stage.done("a", "b", "c"))
    assert most == 1


async def test_a_change_that_contradicts_itself_leaves_the_routes_as_they_were(stage, monkeypatch):
    looked, look = [], LiveRoutes.look

    def note_looks(following: LiveRoutes) -> None:
        revision = stage.registry.revision
        look(following)
        looked.append(revision)

    monkeypatch.setattr(LiveRoutes, "look", note_looks)

    async def note(event: Event, context: Context) -> None:
        pass

    stage.registry.register(note, MESSAGE, name="one", queue="here")
    async with stage.worker():
        stage.registry.register(note, MESSAGE, name="two", queue="there")
        await eventually(lambda: stage.registry.revision in looked)
        stage.publish("ev")
        await eventually(lambda: stage.done("ev"))


async def test_without_redis_it_does_not_start(stage, tmp_path):
    worker = stage.worker(redis_url=f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(RedisUnreachable):
        await worker.start()
    assert not worker.is_running
    await worker.stop()


async def test_handlers_that_contradict_each_other_do_not_start(stage):
    stage.registry.register(lambda event, context: None, MESSAGE, name="one", queue="here")
    stage.registry.register(lambda event, context: None, MESSAGE, name="two", queue="there")
    with pytest.raises(RegistrationInvalid, match="different queues"):
        await stage.worker().start()


async def test_it_starts_once_and_again_after_a_stop(stage):
    worker = stage.worker()
    with pytest.raises(Misused, match="never started"):
        await worker.wait()
    await worker.stop()
    await worker.start()
    with pytest.raises(Misused, match="runs already"):
        await worker.start()
    await worker.stop()
    await worker.stop()
    await worker.wait()
    stage.registry.register(lambda event, context: None, MESSAGE, name="h")
    stage.publish("ev")
    async with worker:
        await eventually(lambda: stage.done("ev"))


async def test_stopping_lets_a_handler_end_and_gives_back_the_others(stage):
    begun, release = asyncio.Event(), asyncio.Event()

    async def hold(event: Event, context: Context) -> None:
        begun.set()
        await release.wait()

    stage.registry.register(hold, MESSAGE, concurrency=1)
    stage.publish("first", "second")
    worker = stage.worker()
    await worker.start()
    await begun.wait()
    await eventually(lambda: stage.state("second") == "running")
    stopping = asyncio.create_task(worker.stop())
    await eventually(lambda: stage.state("second") == "retry")
    assert stage.state("first") == "running"
    release.set()
    await stopping
    assert stage.done("first")
    assert stage.state("second", "attempts") == "0"
    assert stage.consumers() == []


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_what_does_not_end_within_the_grace_is_given_back_uncounted(stage, kind, monkeypatch):
    """At once if it has ended by its cancellation; a thread has a moment for its process to end."""
    monkeypatch.setattr("flybridge.workers.dispatch.dispatcher.LEFT_DELAY", 0.5)
    begun, release, attempts = threading.Event(), threading.Event(), []

    async def wait(event: Event, context: Context) -> None:
        begun.set()
        await asyncio.sleep(60)

    def block(event: Event, context: Context) -> None:
        begun.set()
        release.wait(10)

    other = Registry()
    other.register(lambda event, context: attempts.append(context.attempt), MESSAGE, name="h")
    stage.registry.register(wait if kind == "async def" else block, MESSAGE, name="h")
    stage.publish("ev")
    worker = stage.worker()
    await worker.start()
    await eventually(begun.is_set)
    try:
        with structlog.testing.capture_logs() as lines:
            await worker.stop(grace=0.01)
        stopped = time.monotonic()
        async with stage.worker(other):
            await eventually(lambda: stage.done("ev"))
        after = time.monotonic() - stopped
    finally:
        release.set()
    assert attempts == [1]
    left = [line["event_id"] for line in lines if line["event"] == "handler.left"]
    assert left == (["ev"] if kind == "def" else [])
    assert kind == "async def" or after > 0.3


async def test_whoever_cancels_a_stop_does_not_cancel_the_stopping(stage):
    ended = asyncio.Event()

    async def slow(event: Event, context: Context) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        ended.set()

    begun = asyncio.Event()
    stage.registry.register(slow, MESSAGE)
    stage.publish("ev")
    worker = stage.worker()
    await worker.start()
    await begun.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.stop(), 0.02)
    await worker.wait()
    assert ended.is_set()
    assert stage.done("ev")


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_loop_that_ends_during_a_stop_gives_everything_back(redis, server, seconds):
    stage = Stage(redis, server.url)
    begun = asyncio.Event()

    async def take(event: Event, context: Context) -> None:
        begun.set()
        await asyncio.sleep(seconds)

    async def be_impatient() -> None:
        stage.registry.register(take, MESSAGE)
        stage.publish("ev")
        worker = stage.worker()
        await worker.start()
        await begun.wait()
        await eventually(lambda: seconds or stage.done("ev"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.stop(grace=30), 0.01)

    asyncio.run(be_impatient())
    assert stage.state("ev") == ("retry" if seconds else "done")
    assert stage.consumers() == []


def test_a_loop_that_ends_without_a_stop_gives_everything_back(redis, server):
    stage = Stage(redis, server.url)
    begun = asyncio.Event()

    async def endless(event: Event, context: Context) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def forget_to_stop() -> None:
        stage.registry.register(endless, MESSAGE)
        stage.publish("ev")
        await stage.worker().start()
        await begun.wait()

    asyncio.run(forget_to_stop())
    assert (stage.state("ev"), stage.state("ev", "attempts")) == ("retry", "0")
    assert stage.consumers() == []


async def test_who_cancels_everything_right_after_the_start_leaves_no_threads(stage):
    worker = stage.worker()
    await worker.start()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await worker.wait()
    names = {each.name for each in threading.enumerate()}
    assert not names & {"flybridge-read", "flybridge-settle", "flybridge-keep"}


def test_a_loop_that_is_closed_without_a_word_holds_on_to_nothing(redis, server):
    stage = Stage(redis, server.url)
    stage.registry.register(lambda event, context: None, MESSAGE, name="h")
    loop = asyncio.new_event_loop()
    worker = stage.worker()
    loop.run_until_complete(worker.start())
    loop.close()
    stage.publish("ev")
    deadline = time.monotonic() + 5
    while stage.state("ev") != "retry" or stage.consumers():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
    assert stage.state("ev", "attempts") == "0"


async def test_it_says_so_when_it_ends_by_a_mistake_of_ours(stage, monkeypatch):
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    worker = stage.worker()
    await worker.start()
    monkeypatch.setattr(StreamReader, "read", broken)
    with pytest.raises(TaskFailed, match="see the traceback in the log"):
        await asyncio.wait_for(worker.wait(), 5)
    assert not worker.is_running
    await worker.stop()


async def test_two_of_them_share_a_process_and_do_not_disturb_each_other(stage):
    handled: list[tuple[str, str]] = []

    def registry(name: str) -> Registry:
        made = Registry()
        made.register(lambda event, context: handled.append((name, event.id)), MESSAGE, name="h")
        return made

    stage.publish("ev1")
    stage.publish("ev2", app="cli_other")
    audit = stage.worker(registry("audit"), group="audit", start_from="all")
    other_app = stage.worker(registry("other app"), app_id="cli_other")
    await audit.start()
    await other_app.start()
    async with stage.worker(registry("workers"), start_from="all"):
        await eventually(lambda: len(handled) == 3)
    await audit.stop()
    stage.publish("ev3", app="cli_other")
    await eventually(lambda: len(handled) == 4)
    assert sorted(handled) == [
        ("audit", "ev1"),
        ("other app", "ev2"),
        ("other app", "ev3"),
        ("workers", "ev1"),
    ]


async def test_two_of_one_group_share_the_events(stage):
    handled: list[str] = []
    stage.registry.register(lambda event, context: handled.append(event.id), MESSAGE, name="h")
    events = [f"ev{n}" for n in range(20)]
    async with stage.worker(concurrency=1):
        async with stage.worker(concurrency=1):
            stage.publish(*events)
            await eventually(lambda: stage.done(*events))
            assert len(stage.consumers()) == 2
        stage.publish("late")
        await eventually(lambda: stage.done("late"))
    assert sorted(handled) == sorted([*events, "late"])


async def test_def_handlers_that_hang_leave_threads_for_the_other_workers(stage):
    release = threading.Event()
    events = [f"ev{n}" for n in range(40)]
    audit = Registry()
    audit.register(lambda event, context: None, MESSAGE, name="h")
    stage.registry.register(lambda event, context: release.wait(10), MESSAGE, name="hangs")
    stage.publish(*events)
    try:
        async with stage.worker(), stage.worker(audit, group="audit", start_from="all"):
            await eventually(lambda: all(stage.state(each) == "running" for each in events))
            await eventually(lambda: stage.done(*events, group="audit"))
            release.set()
    finally:
        release.set()


@pytest.mark.parametrize("surrounded", [False, True])
async def test_a_def_handler_beyond_its_timeout_is_waited_for_and_its_success_kept(
    stage, surrounded
):
    """Also where middleware is async, whose timeout cancels what awaits the handler's thread."""
    release, attempts = threading.Event(), []

    class Outer(Middleware):
        async def before(self, event: Event, context: Context) -> None: ...

    def hang(event: Event, context: Context) -> None:
        attempts.append(context.attempt)
        release.wait(10)

    if surrounded:
        stage.registry.use(Outer)
    stage.registry.register(hang, MESSAGE, name="hang", timeout=0.02, backoff=0)
    stage.publish("ev")
    async with stage.worker():
        try:
            with structlog.testing.capture_logs() as lines:
                await eventually(lambda: [each for each in lines if "overrun" in each["event"]])
            assert "hang" in [line.get("handler") for line in lines]
            assert stage.state("ev") == "running"
        finally:
            release.set()
        await eventually(lambda: stage.done("ev"))
    assert attempts == [1]


async def test_the_loop_goes_on_while_redis_does_not_answer_about_a_suspect(stage, monkeypatch):
    asked, answer, in_time, ran = threading.Event(), threading.Event(), [], []
    isolate = quarantine.isolate

    def slowly(*args: Any) -> int:
        asked.set()
        in_time.append(answer.wait(2))
        return isolate(*args)

    async def note(event: Event, context: Context) -> None:
        ran.append((event.id, context.attempt))

    monkeypatch.setattr(quarantine, "isolate", slowly)
    stage.registry.register(note, MESSAGE)
    state = {"state": "retry", "attempts": 2, "crashes": 2, "due": 0}
    stage.redis.hset(Keys(APP).state("workers", "suspect"), mapping=state)
    stage.publish("suspect", "other")
    async with stage.worker():
        await eventually(asked.is_set)
        assert ran == []
        answer.set()
        await eventually(lambda: stage.done("suspect", "other"))
    assert ran == [("suspect", 3), ("other", 1)]
    assert in_time == [True]


async def test_a_handler_that_cancels_its_own_task_is_tried_again_later(stage):
    async def cancel(event: Event, context: Context) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(1)

    stage.registry.register(cancel, MESSAGE)
    stage.publish("ev")
    async with stage.worker():
        await eventually(lambda: stage.state("ev") == "retry")
        assert stage.state("ev", "attempts") == "1"
        assert "CancelledError" in stage.state("ev", "error")


async def test_what_a_handler_leaves_in_its_context_is_not_found_by_the_next(stage):
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    variable.set("at the start")
    found: list[str] = []

    async def leave(event: Event, context: Context) -> None:
        found.append(variable.get())
        variable.set(event.id)

    stage.registry.register(leave, MESSAGE)
    stage.publish("a", "b", "c")
    async with stage.worker(concurrency=1):
        await eventually(lambda: stage.done("a", "b", "c"))
    assert found == ["at the start"] * 3


async def test_spans_go_from_the_claim_over_the_handler_to_the_settlement(stage, monkeypatch):
    ours, programs = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(programs))
    monkeypatch.setattr("flybridge.bridge.telemetry.tracing.span_exporter", lambda: ours)
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    stage.registry.register(lambda event, context: None, MESSAGE, name="h")
    stage.publish("ev", trace=f"00-{'1' * 32}-{'2' * 16}-01")
    async with stage.worker():
        await eventually(lambda: stage.done("ev"))
    spans = {
        span.name: span for span in (*ours.get_finished_spans(), *programs.get_finished_spans())
    }
    process = spans.pop(f"process {Keys(APP).stream(MESSAGE)}")
    assert f"{process.context.trace_id:032x}" == "1" * 32
    assert {span.parent.span_id for span in spans.values()} == {process.context.span_id}
    assert sorted(spans) == ["claim", "handle h", "settle"]
