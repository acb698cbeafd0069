"""Keys and entries that somebody has edited by hand: one event or one type stops, told once, and
everything else goes on; with the key gone, what had stopped goes on too."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.scripts import is_spoilt
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers import Context, Event, Registry, Reject, Retry
from flybridge.workers.inline import InlineWorker
from flybridge.workers.routes.business_keys import _digest
from tests.waiting import eventually

PLAIN, OTHER = "im.message.receive_v1", "im.chat.updated_v1"
ORDERED, ONCE = "contact.user.updated_v3", "contact.user.created_v3"
KEYS, GROUP = Keys("cli_test"), "workers"
LEASE = 1.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flybridge.workers.intake.intake.BLOCK", 0.05)
    monkeypatch.setattr("flybridge.workers.claim.guard.DEAD_WAIT", 0.5)


CONTENT = {
    "type": ("return redis.call('HGET', KEYS[1], 'a')", "text"),
    "comparison": ("return tonumber(redis.call('GET', KEYS[1])) > 1", "text"),
    "number": ("return redis.call('HINCRBY', KEYS[1], 'n', 1)", "hash"),
    "id": ("return redis.call('XRANGE', KEYS[1], 'x', 'x')", "stream"),
    "argument": ("return redis.call('EXISTS', nil)", "text"),
}
"""Scripts, and the key that each fails on for what lies there."""

ELSE = {
    "group": ("return redis.call('XPENDING', KEYS[1], 'g')", "stream"),
    "permission": ("return redis.call('TTL', KEYS[1])", "text"),
    "memory": ("return redis.call('SET', KEYS[1], 'a')", "text"),
}


@pytest.mark.parametrize("name", [*CONTENT, *ELSE])
def test_what_a_script_says_of_a_key_is_told_from_what_redis_says_of_itself(
    either_server: EmbeddedRedis, name: str
) -> None:
    url = either_server.url
    with (
        Redis.from_url(url, protocol=2) as redis,
        Redis.from_url(url, protocol=2, username="someone", password="any") as user,
    ):
        redis.flushall()
        redis.set("text", "x")
        redis.hset("hash", "n", "x")
        redis.xadd("stream", {"a": "b"})
        redis.acl_setuser(
            "someone", enabled=True, nopass=True, commands=["+@all", "-ttl"], keys=["*"]
        )
        text, key = (CONTENT | ELSE)[name]
        script = text if name == "memory" else f"#!lua flags=allow-oom\n{text}"
        redis.config_set("maxmemory", int(name == "memory"))
        try:
            with pytest.raises(ResponseError) as caught:
                user.eval(script, 1, key)
        finally:
            redis.config_set("maxmemory", 0)
    assert is_spoilt(caught.value) is (name in CONTENT)


def registry() -> Registry:
    made = Registry()
    options = (
        (PLAIN, {}),
        (OTHER, {}),
        (ORDERED, {"ordered_by": "body.key"}),
        (ONCE, {"dedup_by": "body.key"}),
    )
    for event_type, given in options:
        made.register(handler(), event_type, name=event_type, **given)
    return made


def handler() -> Callable[..., Any]:
    async def handle(event: Event, context: Context) -> None:
        if event.id.startswith("retry") and context.attempt == 1:
            raise Retry(after=0.05, reason="not yet")
        if event.id.startswith("dead"):
            raise Reject("no")

    return handle


@dataclass
class Stage:
    redis: Redis
    url: str
    published: list[str] = field(default_factory=list)

    def publish(self, event_id: str, event_type: str = PLAIN, key: str = "") -> None:
        header = {"event_id": event_id, "event_type": event_type, "app_id": "cli_test"}
        body = {"key": key or event_id}
        envelope = json.dumps({"schema": "2.0", "header": header, "event": body}).encode()
        entry = Entry(event_id, event_type, "cli_test", "tk", "2.0", 1, 2, 3, "", "", envelope)
        fields = entry.fields()
        told: Any = dict(zip(fields[::2], fields[1::2], strict=True))
        self.redis.xadd(KEYS.stream(event_type), told)
        self.published.append(event_id)

    def some(self, name: str, types: tuple[str, ...] = (PLAIN, OTHER, ORDERED, ONCE)) -> list[str]:
        """Publish one event of each type, and one that is tried twice."""
        named = {f"{name}-{each}": each for each in types} | {f"retry-{name}": types[0]}
        for event_id, event_type in named.items():
            self.publish(event_id, event_type)
        return list(named)

    async def flows(self, *types: str) -> None:
        """All of these types end, now and when what stands still has been looked at again."""
        first = self.some("first", types)
        await eventually(lambda: self.ended(*first))
        await asyncio.sleep(LEASE * 1.2)
        later = self.some("later", types)
        await eventually(lambda: self.ended(*later))

    def state(self, event_id: str) -> str:
        try:
            return (self.redis.hget(KEYS.state(GROUP, event_id), "state") or b"").decode()
        except ResponseError:
            return "spoilt"

    def ended(self, *event_ids: str) -> bool:
        return all(self.state(each) in ("done", "dead") for each in event_ids)

    @asynccontextmanager
    async def running(self, begins: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """A worker, running already or to be started in the body."""
        settings = WorkerSettings(
            app_id="cli_test", redis_url=self.url, event_lease=LEASE, unhandled_after=0
        )
        worker = InlineWorker(settings, registry(), concurrency=20)
        started = False

        async def start() -> None:
            nonlocal started
            if not started:
                started = True
                await worker.start()

        if begins == "while":
            await start()
            warm = self.some("warm")
            await eventually(lambda: self.ended(*warm))
        try:
            yield start
        finally:
            await worker.stop(grace=0)


@pytest.fixture
def stage(redis: Redis, server: EmbeddedRedis) -> Stage:
    redis.sadd(KEYS.types, PLAIN, OTHER, ORDERED, ONCE)
    return Stage(redis, server.url)


def as_text(redis: Redis, key: str) -> None:
    redis.set(key, "x")


def as_list(redis: Redis, key: str) -> None:
    redis.rpush(key, "x")


LETTERS, TYPES, OTHERS = KEYS.dead(GROUP), KEYS.types, KEYS.stream(OTHER)
OF_ONE_EVENT = {
    KEYS.state(GROUP, "state"): ("state", PLAIN, as_text),
    "lock:" + KEYS.lock_name(GROUP, "lock"): ("lock", PLAIN, as_list),
    f"{KEYS.order(GROUP)}:{ORDERED}:line": ("line", ORDERED, as_text),
    KEYS.business(GROUP, _digest(ONCE, ONCE, "business")): ("business", ONCE, as_list),
}
"""Key -> the event that it stops, and what lies there instead."""

OF_ALL = (
    LETTERS,
    TYPES,
    OTHERS,
    KEYS.stream(ORDERED),
    KEYS.replays(GROUP),
    KEYS.subscriptions,
    KEYS.workers(GROUP),
    KEYS.handled(GROUP),
    KEYS.joined(GROUP),
    KEYS.starts(GROUP),
    KEYS.clock(GROUP),
    *(KEYS.retries_of(GROUP, KEYS.stream(each)) for each in (PLAIN, ONCE)),
)


def told(logs: list[Any]) -> dict[str, int]:
    """Key -> how often it is told of, with a cure."""
    errors = [line for line in logs if "delete this key" in line.get("hint", "")]
    return dict(Counter(line.get("key") or line["stream"] for line in errors))


def unwell(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] in ("intake.died", "redis.lost")]


@pytest.mark.parametrize("begins", ["before", "while"])
async def test_a_key_of_one_event_stops_that_event_only_and_is_told_once(
    stage: Stage, begins: str
) -> None:
    with capture_logs() as logs:
        async with stage.running(begins) as start:
            for key, (event_id, event_type, spoil) in OF_ONE_EVENT.items():
                spoil(stage.redis, key)
                stage.publish(event_id, event_type)
            await start()
            await stage.flows(PLAIN, OTHER, ORDERED, ONCE)
            victims = [event_id for event_id, _, _ in OF_ONE_EVENT.values()]
            assert not any(map(stage.ended, victims))
            stage.redis.delete(*OF_ONE_EVENT)
            await eventually(lambda: stage.ended(*victims))
    assert told(logs) == dict.fromkeys(OF_ONE_EVENT, 1)
    assert unwell(logs) == []


@pytest.mark.parametrize("begins", ["before", "while"])
async def test_keys_that_all_share_stop_what_needs_them_only_and_are_told_once(
    stage: Stage, begins: str
) -> None:
    with capture_logs() as logs:
        async with stage.running(begins) as start:
            stage.redis.delete(*OF_ALL)
            for key in OF_ALL:
                as_text(stage.redis, key)
            stage.publish("dead")
            await start()
            await stage.flows(PLAIN, ONCE)
            assert not stage.ended("dead")
            await eventually(lambda: told(logs).keys() == set(OF_ALL))
            stage.redis.delete(*OF_ALL)
            stage.redis.sadd(TYPES, PLAIN, OTHER, ORDERED, ONCE)
            await eventually(lambda: stage.ended("dead", *stage.some("cured")))
    assert told(logs) == dict.fromkeys(OF_ALL, 1)
    assert unwell(logs) == []
    assert sum(line["event"] == "redis.refused" for line in logs) <= 1
    assert stage.redis.xlen(LETTERS) == 1


HUGE = b"9" * 30
ODD_ENTRIES: tuple[dict[bytes, bytes], ...] = (
    {b"hello": b"world"},
    {b"\xff\xfe": b"\x00"},
    {b"event_id": b"\xff", b"envelope": b"{}"},
    {b"event_id": b"e1", b"event_type": b"\xff", b"envelope": b"{}"},
    {b"event_id": b"", b"envelope": b"{}"},
    {b"event_id": b"e2", b"created_at": b"soon", b"envelope": b"{}"},
    {b"event_id": b"e3", b"created_at": HUGE, b"envelope": b"{}"},
    {b"event_id": b"e4", b"received_at": b"-" + HUGE, b"envelope": b"{}"},
    {b"event_id": b"e5", b"term": HUGE, b"envelope": b"{}"},
    {b"event_id": b"e6", b"replayed_at": HUGE, b"envelope": b"{}"},
)
"""They become dead letters."""

ODD_EVENTS: tuple[dict[bytes, bytes], ...] = (
    {b"event_id": b"o1", b"envelope": b""},
    {b"event_id": b"o2", b"envelope": b"\xff\x00"},
    {b"event_id": b"o3", b"envelope": b"[" * 50_000},
    {b"event_id": b"o4", b"envelope": b'{"event": {"key": "\\ud800"}}'},
    {b"event_id": b"o5", b"envelope": b'{"event": {"key": 1e999}}'},
    {b"event_id": b"o6", b"envelope": b'{"event": {"key": {"a": []}}}'},
    {b"event_id": b"o8", b"traceparent": b"00-x", b"tracestate": b"=", b"envelope": b"{}"},
    {b"event_id": b"o9" * 500, b"envelope": b"{}"},
    {b"event_id": "𓃰\n|:{}".encode(), b"envelope": b"{}"},
    {b"event_id": b"o10", b"envelope": b"{}", **{str(n).encode(): b"" for n in range(5_000)}},
)
"""They can be read, whatever their handlers make of them."""

ODD_MEMBERS = (b"", b"|", b"x", b"\xff", b"1-1|", b"0|" + b"9" * 400, HUGE + b"-" + HUGE + b"|s")
"""Of sets that name a type, an entry, a place in a line, a worker or a group."""


async def test_odd_entries_and_members_stop_nothing(stage: Stage) -> None:
    redis: Any = stage.redis
    sets = (TYPES, KEYS.replays(GROUP), KEYS.subscriptions)
    lines = [f"{KEYS.order(GROUP)}:{ORDERED}:{ORDERED}-{name}" for name in ("first", "later")]
    zsets = [KEYS.workers(GROUP), KEYS.handled(GROUP), *lines]
    zsets += [KEYS.retries_of(GROUP, KEYS.stream(each)) for each in (PLAIN, ORDERED)]
    with capture_logs() as logs:
        for key in (KEYS.joined(GROUP), KEYS.starts(GROUP)):
            redis.hset(key, KEYS.stream(PLAIN), "x")
        async with stage.running("while"):
            for name in ("first", "later"):
                for key in sets:
                    redis.sadd(key, *ODD_MEMBERS)
                for key in zsets:
                    redis.zadd(key, dict.fromkeys(ODD_MEMBERS, 0))
                others = stage.some(name)
                for event_type in (PLAIN, ORDERED, ONCE):
                    for odd in (*ODD_ENTRIES, *ODD_EVENTS):
                        typed = {b"event_type": event_type.encode(), **odd}
                        redis.xadd(KEYS.stream(event_type), typed)
                others += stage.some(f"{name}-behind")
                await eventually(lambda others=others: stage.ended(*others))
            streams = [KEYS.stream(each) for each in (PLAIN, ORDERED, ONCE)]
            await eventually(
                lambda: not any(redis.xpending(each, GROUP)["pending"] for each in streams)
            )
    assert unwell(logs) == []
    assert not [line for line in logs if line["event"] in ("redis.refused", "key.spoilt")]
    odd = Counter(line["event"] for line in logs if line["log_level"] == "error")
    assert odd["entry.buried"] == 2 * 3 * len(ODD_ENTRIES)
    assert odd["retry.malformed"] == 4
