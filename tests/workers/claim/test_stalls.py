"""Lines and business keys that stand still: told once, shown as long as they do."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import Keys
from flybridge.workers.claim.claims import Queued
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.claim.stalls import STALLED_AFTER, Stalls, stalled
from tests.workers.intake.test_ordered_reader import IM, Streams, Worker
from tests.workers.routes.test_business_keys import RETRY, World, claim, end, run

DAY = Outcome(retry_after=86_400.0, error="E: later")


@pytest.fixture
def streams(redis: Redis, keys: Keys) -> Streams:
    return Streams(redis, keys)


@pytest.fixture
def worker(redis: Redis, keys: Keys) -> Worker:
    return Worker(redis, keys, "a")


def later(redis: Redis, keys: Keys, seconds: float = STALLED_AFTER) -> None:
    """As if everything had been seen so much earlier."""
    for name, noted in redis.hgetall(keys.stalls("workers")).items():
        since, _, rest = noted.partition(b"|")
        earlier = int(since) - int(seconds * 1000)
        redis.hset(keys.stalls("workers"), name, b"%d|%s" % (earlier, rest))


def told(worker: Worker) -> list[Any]:
    with capture_logs() as logs:
        worker.stalls.look()
    return [line for line in logs if line["event"].endswith(".stalled")]


def met_again(worker: Worker) -> None:
    """Who waits in a line is looked at again when it was idle for an event lease."""
    worker.die()
    worker.take_over()


def test_a_line_whose_first_waits_long_is_told_of_once_and_shown(redis, keys, streams, worker):
    streams.push("x", "x")
    assert worker.read() == ["x-0"]
    run = worker.held[0]
    worker.end(DAY)
    assert told(worker) == []
    later(redis, keys, STALLED_AFTER - 60)
    met_again(worker)
    assert told(worker) == []
    later(redis, keys)
    met_again(worker)
    (line,) = told(worker)
    assert line["event"] == "line.stalled"
    assert (line["event_id"], line["entry"]) == ("x-0", run.pending.entry_id)
    assert line["since"] >= 2 * STALLED_AFTER - 60
    assert "its retry, due in 86" in line["waits_for"]
    assert f"XACK {keys.stream(IM)} workers {run.pending.entry_id}" in line["hint"]
    assert len(line["key"]) == 12, "a hash: a key may be anything"
    met_again(worker)
    assert told(worker) == [], "once"
    assert told(Worker(redis, keys, "b")) == [], "in the whole group"
    assert worker.stalls.count == 1
    (shown,) = stalled(redis, keys, "workers")
    assert (shown.kind, shown.event_id, shown.state) == ("line", "x-0", "retry")
    assert shown.sentence("workers").startswith("an order (ordered_by), key ")


def test_the_cure_that_it_names_works(redis, keys, streams, worker):
    streams.push("x", "x")
    worker.read()
    worker.end(DAY)
    worker.stalls.look()
    later(redis, keys)
    met_again(worker)
    (line,) = told(worker)
    redis.execute_command(*line["hint"].partition("redis-cli ")[2].split())
    met_again(worker)
    assert worker.due() == ["x-1"]
    assert stalled(redis, keys, "workers") == []


def test_a_line_that_moves_is_not_told_of(redis, keys, streams, worker):
    streams.push("x", "x", "x")
    worker.read()
    for _ in range(2):
        worker.stalls.look()
        later(redis, keys)
        worker.end()
        worker.due()
        met_again(worker)
        assert told(worker) == []


def test_a_first_event_that_nobody_has_begun_with_is_named_as_such(redis, keys, streams, worker):
    streams.push("x", "x")
    worker.reader.read_ordered(10)
    worker.stalls.look()
    later(redis, keys)
    (shown,) = stalled(redis, keys, "workers")
    assert shown.waits_for == "a worker to begin with it"


def test_a_business_key_whose_event_waits_long_is_told_of(redis, keys):
    world, stalls = World(redis, keys), Stalls(redis, keys, "workers")
    first, item = world.push("e1"), world.push("e2")
    world.a._stalls = stalls
    end(world.a, run(world.a, first), DAY)
    with capture_logs() as logs:
        for _ in range(3):
            assert isinstance(claim(world.a, item), Queued)
            stalls.look()
            later(redis, keys)
    (line,) = [each for each in logs if each["event"] == "business_key.stalled"]
    assert (line["event_id"], line["entry"]) == ("e1", first.entry_id)
    redis.xack(first.stream, "workers", first.entry_id)
    assert run(world.b, item).marks == {}


def test_a_clock_that_went_back_makes_nothing_stand_still(redis, keys):
    world, stalls = World(redis, keys), Stalls(redis, keys, "workers")
    end(world.a, run(world.a, world.push("e1")), RETRY)
    world.a._stalls = stalls
    claim(world.a, world.push("e2"))
    stalls.look()
    later(redis, keys, -3600)
    claim(world.a, world.push("e2"))
    stalls.look()
    (noted,) = redis.hvals(keys.stalls("workers"))
    since, seen, *_ = noted.split(b"|")
    assert since == seen


def test_what_is_seen_no_more_and_what_was_edited_by_hand_is_forgotten(redis, keys):
    world, stalls = World(redis, keys), Stalls(redis, keys, "workers")
    redis.hset(keys.stalls("workers"), mapping={"old": "1|1|0|x", "odd": "nonsense"})
    world.a._stalls = stalls
    end(world.a, run(world.a, world.push("e1")), DAY)
    for _ in range(40):
        claim(world.a, world.push("e2"))
        stalls.look()
    assert len(redis.hkeys(keys.stalls("workers"))) == 1
    assert 0 < redis.ttl(keys.stalls("workers")) <= 3600
    redis.flushall()
    stalls.met("line", ["gone"])
    stalls.look()
    assert stalls.count == 0


def test_a_user_who_may_not_look_closer_and_a_spoilt_key_stop_nothing(redis, keys, streams, worker):
    streams.push("x", "x")
    worker.read()
    redis.acl_setuser("plain", enabled=True, nopass=True, keys=["*"],
                      commands=["+@all", "-hrandfield", "-hdel", "-zscan"])  # fmt: skip
    try:
        redis.auth("", "plain")
        worker.stalls.look()
        redis.set(keys.stalls("workers"), "by hand")
        met_again(worker)
        worker.stalls.look()
    finally:
        redis.auth("", "default")
        redis.acl_deluser("plain")
    redis.delete(keys.stalls("workers"))
