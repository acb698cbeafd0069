"""Which workers are there, and what their group has subscribed to."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from bridge.local.valkey import EmbeddedRedis
from bridge.streams import Keys
from workers.presence import AT_WORK, Worker, present


@pytest.fixture
def server(either_server: EmbeddedRedis) -> EmbeddedRedis:
    return either_server


def subscriptions(redis: Redis, keys: Keys) -> set[bytes]:
    found: Any = redis.smembers(keys.subscriptions)
    return found


def test_a_subscription_is_noted_and_stays_when_less_is_read(worker, redis, keys):
    worker.reader.subscribe(frozenset({"queue:im"}), ["im"])
    assert subscriptions(redis, keys) == {b"workers|queue:im"}
    worker.reader.subscribe(frozenset({"*"}), ["im", "contact"])
    worker.reader.subscribe(frozenset({"queue:im"}), ["im"])
    assert subscriptions(redis, keys) == {b"workers|queue:im", b"workers|*"}


def test_a_subscription_that_redis_forgot_is_noted_with_the_next_sign_of_life(worker, redis, keys):
    worker.reader.subscribe(frozenset({"*"}), ["im"])
    for again in (worker.reader.beat, worker.reader.forget_groups):
        redis.delete(keys.subscriptions)
        again()
        assert subscriptions(redis, keys) == {b"workers|*"}


def test_a_worker_is_there_from_its_subscription_until_it_leaves(worker, redis, keys):
    assert present(redis, keys, "workers") == []
    worker.reader.beat()
    assert present(redis, keys, "workers") == []
    worker.reader.subscribe(frozenset(), [])
    worker.reader.subscribe(frozenset({"queue:im", "queue:contact"}), ["im", "contact"])
    (found,) = present(redis, keys, "workers")
    assert found.started_at > 1.7e12
    assert replace(found, started_at=0) == Worker(
        "c1", "workers", platform.node(), os.getpid(), 0, ("contact", "im")
    )
    worker.reader.leave()
    assert not redis.exists(keys.workers("workers"))


def test_a_worker_on_a_full_redis_is_there(worker, redis, keys, full):
    full()
    worker.reader.subscribe(frozenset({"*"}), ["im"])
    assert present(redis, keys, "workers")


def test_a_worker_that_is_silent_is_there_no_more_and_is_forgotten(redis, keys, worker):
    long_ago = time.time() * 1000 - AT_WORK * 1000 - 5000
    redis.zadd(keys.workers("workers"), {b'{"name":"dead"}': long_ago})
    assert present(redis, keys, "workers") == []
    worker.reader.subscribe(frozenset({"*"}), ["im"])
    assert redis.zcard(keys.workers("workers")) == 1
    assert 0 < redis.pttl(keys.workers("workers")) <= AT_WORK * 1000


def test_a_reader_in_another_language_may_say_of_itself_what_it_likes(redis, keys):
    now = time.time() * 1000
    told = {b"analytics": now, b"3": now, b'{"name":"b","pid":7,"more":[]}': now}
    redis.zadd(keys.workers("workers"), told)
    found = present(redis, keys, "workers")
    assert found == [Worker("3"), Worker("analytics"), Worker("b", pid=7)]
