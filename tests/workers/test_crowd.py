"""A crowd of one kind keeps nobody else out: fresh events of other types flow beside it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers import Context, Event, Registry
from flybridge.workers.inline import InlineWorker

FRESH, CROWDED, ORDERED = "im.message.receive_v1", "im.chat.updated_v1", "contact.user.updated_v3"
KEYS, GROUP = Keys("cli_test"), "workers"

SOON = 3.0
"""Seconds within which a fresh event ends, on a busy machine."""

Crowd = Callable[[Redis], None]


def add(redis: Any, event_type: str, ids: list[str], text: str = "") -> None:
    with redis.pipeline(transaction=False) as pipeline:
        for event_id in ids:
            header = {"event_id": event_id, "event_type": event_type, "app_id": "cli_test"}
            event = {"schema": "2.0", "header": header, "event": {"key": "hot", "text": text}}
            envelope = json.dumps(event).encode()
            told = (event_id, event_type, "cli_test", "tk", "2.0", 1, 2, 3, "", "", envelope)
            fields = Entry(*told).fields()
            pipeline.xadd(
                KEYS.stream(event_type), dict(zip(fields[::2], fields[1::2], strict=True))
            )
        pipeline.execute()


def names(count: int) -> list[str]:
    return [f"crowd-{number}" for number in range(count)]


def suspects(redis: Redis) -> None:
    for event_id in names(100):
        state = {"state": "running", "token": "dead:1", "attempts": 2, "crashes": 1}
        redis.hset(KEYS.state(GROUP, event_id), mapping=state)
    add(redis, CROWDED, names(100))


def overdue_retries(redis: Redis) -> None:
    """Of a type that nobody reads, and of one that is slow."""
    for event_type in ("approval.approval.updated_v4", CROWDED):
        retries = KEYS.retries_of(GROUP, KEYS.stream(event_type))
        redis.zadd(retries, {f"{number}-1": number for number in range(10_000)})


def a_long_line(redis: Redis) -> None:
    add(redis, ORDERED, names(6_000))


def a_long_pending_list(redis: Redis) -> None:
    """Of a dead worker, each of them for a retry tomorrow."""
    add(redis, CROWDED, names(10_000))
    redis.xgroup_create(KEYS.stream(CROWDED), GROUP, "0")
    given: Any = redis.xreadgroup(GROUP, "dead", {KEYS.stream(CROWDED): ">"})
    tomorrow = (time.time() + 86_400) * 1000
    due = {entry_id: tomorrow for entry_id, _ in given[0][1]}
    redis.zadd(KEYS.retries_of(GROUP, KEYS.stream(CROWDED)), due)
    due_ids = list(due)
    for start in range(0, len(due_ids), 1000):
        ids = due_ids[start : start + 1000]
        redis.xclaim(KEYS.stream(CROWDED), GROUP, "dead", 0, ids, idle=10**9, justid=True)


def large_events(redis: Redis) -> None:
    for number in range(40):
        add(redis, CROWDED, [f"crowd-{number}"], "x" * 2**20)


def large_ordered_events(redis: Redis) -> None:
    for number in range(40):
        add(redis, ORDERED, [f"crowd-{number}"], "x" * (2**20 - 1_000))


def slow_events(redis: Redis) -> None:
    add(redis, CROWDED, [f"slow-{number}" for number in range(200)])


@asynccontextmanager
async def working(url: str) -> AsyncIterator[None]:
    registry = Registry()

    async def handle(event: Event, context: Context) -> None:
        await asyncio.sleep(0.5 if event.id.startswith("slow") else 0.01)

    async def in_order(event: Event, context: Context) -> None:
        await asyncio.sleep(0.1)

    registry.register(handle, FRESH, CROWDED, name="H")
    registry.register(in_order, ORDERED, name="O", ordered_by="body.key")
    settings = WorkerSettings(app_id="cli_test", redis_url=url, event_lease=2)
    async with InlineWorker(settings, registry, concurrency=20):
        yield


@pytest.mark.parametrize(
    "crowd",
    [suspects, overdue_retries, a_long_line, a_long_pending_list, large_events,
     large_ordered_events, slow_events],
)  # fmt: skip
async def test_fresh_events_of_other_types_flow(
    redis: Redis, server: EmbeddedRedis, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flybridge.workers.intake.intake.BLOCK", 0.05)
    redis.sadd(KEYS.types, FRESH, CROWDED, ORDERED)
    crowd(redis)
    async with working(server.url):
        for number in range(4):
            event_id, began = f"fresh-{number}", time.monotonic()
            add(redis, FRESH, [event_id])
            while redis.hget(KEYS.state(GROUP, event_id), "state") != b"done":
                assert time.monotonic() - began < SOON, f"{event_id} waits"
                await asyncio.sleep(0.01)
