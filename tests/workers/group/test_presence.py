"""Which workers are there, and what their group has subscribed to."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Keys
from flybridge.workers.group.presence import AT_WORK, Worker, present
from flybridge.workers.routes.coverage import Coverage
from tests.workers.follower import Follower, follower


@pytest.fixture
def server(either_server: EmbeddedRedis) -> EmbeddedRedis:
    return either_server


def reading(*queues: str) -> Coverage:
    return Coverage(queues=tuple(sorted(queues)))


def seen(worker: Follower) -> set[tuple[str, ...]]:
    return {each.coverage.queues for each in worker.reader.presence.sightings}


def subscriptions(redis: Redis, keys: Keys) -> set[bytes]:
    found: Any = redis.smembers(keys.subscriptions)
    return found


def test_a_subscription_is_noted_and_stays_when_less_is_read(worker, redis, keys):
    worker.reader.subscribe(frozenset({"queue:im"}), reading("im"))
    assert subscriptions(redis, keys) == {b"workers|queue:im"}
    worker.reader.subscribe(frozenset({"*"}), reading("im", "contact"))
    worker.reader.subscribe(frozenset({"queue:im"}), reading("im"))
    assert subscriptions(redis, keys) == {b"workers|queue:im", b"workers|*"}


def test_a_subscription_that_redis_forgot_is_noted_with_the_next_sign_of_life(worker, redis, keys):
    worker.reader.subscribe(frozenset({"*"}), reading("im"))
    for again in (worker.reader.presence.beat, worker.reader.make_groups_again):
        redis.delete(keys.subscriptions)
        again()
        assert subscriptions(redis, keys) == {b"workers|*"}


def test_a_worker_is_there_from_its_subscription_until_it_leaves(worker, redis, keys):
    assert present(redis, keys, "workers") == []
    worker.reader.presence.beat()
    assert present(redis, keys, "workers") == []
    worker.reader.subscribe(frozenset(), reading())
    worker.reader.subscribe(frozenset({"queue:im", "queue:contact"}), reading("im", "contact"))
    (found,) = present(redis, keys, "workers")
    assert found.started_at > 1.7e12
    assert replace(found, started_at=0) == Worker(
        "c1", "workers", platform.node(), os.getpid(), 0, ("contact", "im")
    )
    worker.reader.leave()
    assert not redis.exists(keys.workers("workers"))


def test_what_workers_handle_is_known_to_their_group(redis, keys, worker):
    other = follower(redis, keys, "c2")
    worker.reader.subscribe(frozenset(), reading("im"))
    other.reader.subscribe(frozenset(), reading("contact"))
    assert seen(other) == {("im",), ("contact",)}
    assert seen(worker) == {("im",)}
    worker.reader.presence.beat()
    assert seen(worker) == {("im",), ("contact",)}
    assert all(0 <= each.age < 5 for each in worker.reader.presence.sightings)


def test_what_a_worker_handled_is_known_when_it_has_left_or_lost_its_queues(redis, keys, worker):
    other = follower(redis, keys, "c2")
    for queues in (["im"], []):
        worker.reader.subscribe(frozenset(), reading(*queues))
    worker.reader.leave()
    other.reader.subscribe(frozenset(), reading("default"))
    assert seen(other) == {("im",), (), ("default",)}


def test_what_a_worker_handles_no_more_is_known_no_more_unless_another_does(redis, keys, worker):
    other = follower(redis, keys, "c2")
    both, one = Coverage({"A": ("a",), "B": ("b",)}), Coverage({"A": ("a",)})
    worker.reader.subscribe(frozenset(), both)
    worker.reader.subscribe(frozenset(), one)
    assert [each.coverage for each in worker.reader.presence.sightings] == [one]
    other.reader.subscribe(frozenset(), both)
    worker.reader.subscribe(frozenset(), both)
    worker.reader.subscribe(frozenset(), one)
    other.reader.presence.beat()
    assert {len(each.coverage.handlers) for each in other.reader.presence.sightings} == {1, 2}


def test_a_look_shows_who_has_come_since_the_last_sign_of_life(redis, keys, worker):
    worker.reader.subscribe(frozenset(), reading("im"))
    follower(redis, keys, "c2").reader.subscribe(frozenset(), reading("contact"))
    assert seen(worker) == {("im",)}
    found = worker.reader.presence.look()
    assert {each.coverage.queues for each in found} == {("im",), ("contact",)}
    assert all(-1 < each.age < AT_WORK for each in found)
    assert seen(worker) == {("im",), ("contact",)}
    redis.delete(keys.handled("workers"))
    assert worker.reader.presence.look() == ()


def test_a_time_to_come_is_none_that_redis_had_and_is_forgotten(redis, keys, worker):
    redis.zadd(keys.handled("workers"), {reading("im").to_json(): time.time() * 1000 + 9e6})
    worker.reader.subscribe(frozenset(), reading("contact"))
    assert seen(worker) == {("contact",)}


def test_a_key_of_a_wrong_type_is_told_of_once_and_stops_no_worker(redis, keys, worker):
    redis.set(keys.handled("workers"), "by hand")
    with capture_logs() as lines:
        worker.reader.subscribe(frozenset(), reading("im"))
        worker.reader.presence.beat()
        assert worker.reader.presence.look() == ()
    assert [line["key"] for line in lines if line["event"] == "key.spoilt"] == [
        keys.handled("workers")
    ]
    assert present(redis, keys, "workers")


def test_a_worker_on_a_full_redis_is_there(worker, redis, keys, full):
    full()
    worker.reader.subscribe(frozenset({"*"}), reading("im"))
    assert present(redis, keys, "workers")


def test_a_worker_that_is_silent_is_there_no_more_and_is_forgotten(redis, keys, worker):
    long_ago = time.time() * 1000 - AT_WORK * 1000 - 5000
    redis.zadd(keys.workers("workers"), {b'{"name":"dead"}': long_ago})
    assert present(redis, keys, "workers") == []
    worker.reader.subscribe(frozenset({"*"}), reading("im"))
    assert redis.zcard(keys.workers("workers")) == 1
    assert 0 < redis.pttl(keys.workers("workers")) <= AT_WORK * 1000


def test_a_reader_in_another_language_may_say_of_itself_what_it_likes(redis, keys):
    now = time.time() * 1000
    told = {b"analytics": now, b"3": now, b'{"name":"b","pid":7,"more":[]}': now}
    redis.zadd(keys.workers("workers"), told)
    found = present(redis, keys, "workers")
    assert found == [Worker("3"), Worker("analytics"), Worker("b", pid=7)]
