"""What operators and servers do to Redis, done to a real one: nobody is stopped by it for long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from redis import Redis

from tests.scenarios.behind import (
    BEARS_TROUBLE,
    CELERY_LINES,
    RECOVERY,
    TYPE,
    Pair,
    Watch,
    pair_behind_proxies,
)
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TROUBLE = 1.2
"""Seconds it lasts."""

HELD_FULL = 5.0
"""Seconds for which the bridge takes Redis for full after it refused a write for want of room."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair_behind_proxies(tmp_path_factory.mktemp("pair"), **BEARS_TROUBLE) as pair:
        pair.push_some()
        await pair.all_settled()
        yield pair


async def test_a_redis_without_room_refuses_new_events_and_lets_the_others_be_settled(
    pair: Pair,
) -> None:
    watch = Watch(pair)
    (slow,) = pair.push("slow 1")
    await eventually(lambda: pair.stage.deeds("started", event_id=slow.event_id))
    with pair.stage.redis() as redis:
        redis.config_set("maxmemory", 1)
        (refused,) = pair.push("hello")
        await pair.stage.settled([slow.event_id])
        assert refused.attempts[0].code == 500
        assert not refused.acked
        redis.config_set("maxmemory", 0)

    await watch.recovers(within=2 * HELD_FULL)
    await watch.is_told_once({"redis.full"}, {"redis.relieved"})


def flush_scripts(redis: Redis, pair: Pair) -> None:
    redis.script_flush()


def destroy_group(redis: Redis, pair: Pair) -> None:
    redis.xgroup_destroy(pair.stage.keys.stream(TYPE), "workers")


def kill_clients(redis: Redis, pair: Pair) -> None:
    for kind in ("normal", "pubsub"):
        redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def unblock_clients(redis: Redis, pair: Pair) -> None:
    for client in redis.client_list():
        redis.execute_command("CLIENT", "UNBLOCK", client["id"], "ERROR")


def run_a_long_script(redis: Redis, pair: Pair) -> None:
    """Redis answers BUSY after 200 ms."""
    redis.config_set("busy-reply-threshold", 200)
    redis.eval(
        "local t = redis.call('TIME')[1] * 1e6 + redis.call('TIME')[2] "
        "repeat local n = redis.call('TIME') until n[1] * 1e6 + n[2] > t + ARGV[1] * 1e6",
        0,
        TROUBLE,
    )


def pause_clients(redis: Redis, pair: Pair) -> None:
    redis.client_pause(int(TROUBLE * 1000))
    redis.ping()


def stop_the_server(redis: Redis, pair: Pair) -> None:
    """Like DEBUG SLEEP, or a virtual machine that is moved."""
    os.kill(pair.stage.redis_server.pid, signal.SIGSTOP)
    time.sleep(TROUBLE)
    os.kill(pair.stage.redis_server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "do",
    [flush_scripts, destroy_group, kill_clients, unblock_clients, run_a_long_script, pause_clients,
     stop_the_server],
)  # fmt: skip
async def test_what_operators_and_servers_do_costs_nothing(
    pair: Pair, do: Callable[[Redis, Pair], None]
) -> None:
    watch = Watch(pair)
    pair.push("slow 0.5")
    pair.push_some()
    with pair.stage.redis() as redis:
        doing = asyncio.create_task(asyncio.to_thread(do, redis, pair))
        pair.push_some()
        await doing

    await watch.recovers()
    assert max(watch.told().values(), default=0) <= 2
    assert watch.of_celery() <= CELERY_LINES


async def test_a_flushed_redis_has_lost_what_it_had_and_takes_what_comes(pair: Pair) -> None:
    await pair.all_settled()
    pair.forget_pushes()
    with pair.stage.redis() as redis:
        redis.flushall()

    pair.push_some()
    await pair.all_settled(RECOVERY)


async def test_keys_overwritten_by_hand_cost_nothing_but_what_lies_there(pair: Pair) -> None:
    """Of bridge and worker alike; what each key stops is `tests/workers/test_spoilt.py`'s."""
    await pair.all_settled()
    keys, watch = pair.stage.keys, Watch(pair)
    group = "workers"
    spoilt = (keys.subscriptions, keys.bridges, keys.audit, keys.ages, keys.dead("bridge"),
              keys.workers(group), keys.handled(group), keys.joined(group), keys.clock(group),
              keys.starts(group), keys.retries_of(group, keys.stream(TYPE)))  # fmt: skip
    with pair.stage.redis() as redis:
        for key in spoilt:
            redis.delete(key)
            redis.set(key, "by hand")
        pair.push("hello", "twice", "fail 1")
        await pair.all_settled()
        needed_now = {keys.bridges, keys.subscriptions, keys.workers(group), keys.clock(group)}
        await eventually(lambda: needed_now <= watch.keys_told().keys())
        redis.delete(*spoilt)

    await watch.recovers()
    assert max(watch.keys_told().values()) == 1
