"""Redis' clock: what it tells of an event's age, and what is put right when it went back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.process.boottime import boottime
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.claim.claims import Busy, Pending, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.claim.redis_clock import RedisClock
from flybridge.workers.group.presence import present
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.mending import StreamMending
from tests.workers.follower import IM, follower, ids

LEASE = 2.0
HOURS = 2 * 3_600_000
"""Ms that the clock was ahead."""


@pytest.fixture
def clock(redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    monkeypatch.setattr("flybridge.workers.intake.mending.PAGE", 2)
    consumer = Consumer(redis, keys, "workers", "c1")
    consumer.follow((keys.stream(IM),))
    return RedisClock(redis, keys, "workers", StreamMending(consumer, LEASE))


def went_back(redis: Redis, keys: Keys) -> None:
    """As if the last look had been made two hours from now."""
    redis.hset(keys.clock("workers"), "last", now_ms(redis) + HOURS)


def now_ms(redis: Redis) -> int:
    seconds, micros = redis.time()
    return seconds * 1000 + micros // 1000


def claimed(redis: Redis, keys: Keys, guard: Guard, publish: Callable[..., str]) -> Run:
    publish("ev1")
    (run,) = guard.claim(follower(redis, keys, "c1").read(1))
    assert isinstance(run, Run)
    return run


def test_age_goes_by_redis_and_not_by_the_clock_of_this_host(redis, keys, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    guard = Guard(redis, keys, "workers", LEASE, "w1")
    created = now_ms(redis) - 60_000
    entry = Entry("ev1", IM, "app", "tk", "2.0", created, 2, 3, "", "", b"{}")
    for token in ("fresh", "again"):
        redis.delete("lock:" + keys.lock_name("workers", "ev1"))
        (run,) = guard.claim([Pending(keys.stream(IM), "1-1", entry)])
        assert 59 < boottime() - run.born < 61, token


def aged(clock: RedisClock, at: float, entry_id: int, **times: int) -> float:
    """How old an event seems at a monotonic instant; times in Unix ms."""
    entry = Entry("ev1", IM, "app", "tk", "2.0", 0, 0, 3, "", "", b"{}")
    born = clock.born(replace(entry, **times), f"{entry_id}-0")
    assert born is not None
    return at - born


class Told:
    """A Redis whose clock says what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
        self.unix, self.own = 1_000_000.0, 500.0
        monkeypatch.setattr(
            "flybridge.workers.claim.redis_clock.run_all",
            lambda *_: [(int(self.unix * 1000), 0, b"")],
        )
        self.clock = RedisClock(None, keys, "workers", monotonic=lambda: self.own)  # type: ignore[arg-type]
        self.clock.look()

    def passed(self, seconds: float, ahead: float = 0.0) -> None:
        self.unix += seconds + ahead
        self.own += seconds
        self.clock.look()

    def age(self, entry_id: float, **times: float) -> float:
        told = {name: int(seconds * 1000) for name, seconds in times.items()}
        return aged(self.clock, self.own, int(entry_id * 1000), **told)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> Told:
    return Told(monkeypatch, keys)


def test_an_event_s_age_counts_its_way_to_the_bridge_and_its_time_in_the_stream(told):
    born = told.unix - 100
    assert told.age(born + 30, created_at=born, received_at=born + 30) == pytest.approx(100)
    assert told.age(born + 30, created_at=born, received_at=5) == pytest.approx(100), "nonsense"
    assert told.age(told.unix, received_at=told.unix) == pytest.approx(0)
    replayed = told.age(told.unix - 1, created_at=5, received_at=9_000, replayed_at=told.unix - 1)
    assert replayed == pytest.approx(1)
    assert told.clock.born(Entry("e", IM, "", "", "", 0, 0, 0, "", "", b""), "by hand") is None


def test_a_redis_whose_clock_is_wrong_makes_no_event_old(told):
    told.passed(1, ahead=7_200)
    created = told.unix - 7_200 - 10
    assert told.age(told.unix - 10, created_at=created, received_at=created) == pytest.approx(10)


def test_nor_does_a_clock_that_went_ahead_after_the_publication(told):
    published = told.unix - 10
    told.passed(1, ahead=7_200)
    told.passed(1)
    assert told.age(published, created_at=published, received_at=published) == pytest.approx(12)


def test_nor_one_that_went_back_again(told):
    told.passed(1, ahead=7_200)
    published, created = told.unix, told.unix - 7_200
    told.passed(5, ahead=-7_200)
    assert told.age(published, created_at=created, received_at=created) <= 5
    assert told.age(created, created_at=created, received_at=created) == pytest.approx(5)


def test_nor_a_bridge_whose_clock_is_wrong(told):
    created = told.unix - 10
    assert told.age(told.unix, created_at=created, received_at=created + 7_200) == pytest.approx(10)


def test_a_clock_that_goes_ahead_is_noticed_and_told_of(redis, keys):
    own = iter([0.0, 0.1, 5.0, 5.1, 6.0, 6.1])
    clock = RedisClock(redis, keys, "workers", monotonic=lambda: next(own))
    assert clock.look()
    with capture_logs() as logs:
        assert clock.look(), "it seems to have stood still, for a test is quick"
        assert [round(line["seconds"]) for line in logs] == [-5]
    own = iter([-3600.0, -3600.0])
    clock._monotonic = lambda: next(own, -3600.0)
    assert not clock.look()


def test_a_slow_answer_is_no_jump(redis, keys):
    own = iter([0.0, 0.1, 0.2, 30.0, 30.1, 30.1])
    clock = RedisClock(redis, keys, "workers", monotonic=lambda: next(own))
    assert clock.look()
    with capture_logs() as logs:
        assert clock.look()
    assert logs == []


@pytest.mark.parametrize(("asked", "state"), [(1.0, True), (3600.0, True), (0.0, False)])
def test_no_retry_comes_later_than_was_asked_for(redis, keys, guard, publish, clock, asked, state):
    run = claimed(redis, keys, guard, publish)
    guard.settle([Settlement(run, Outcome(retry_after=asked, error="E"))])
    retries = keys.retries_of("workers", keys.stream(IM))
    redis.zincrby(retries, HOURS, run.pending.entry_id)
    if state:
        redis.hincrby(keys.state("workers", "ev1"), "due", HOURS)
    else:
        redis.delete(keys.state("workers", "ev1"))
    went_back(redis, keys)
    clock.look()
    left = redis.zscore(retries, run.pending.entry_id) - now_ms(redis)
    assert asked * 1000 - 2000 < left <= asked * 1000
    clock.look()
    assert redis.zscore(retries, run.pending.entry_id) - now_ms(redis) == pytest.approx(
        left, abs=500
    )


def test_a_retry_that_was_noted_by_a_right_clock_stays(redis, keys, guard, publish, clock):
    run = claimed(redis, keys, guard, publish)
    guard.settle([Settlement(run, Outcome(retry_after=10_000, error="E"))])
    retries = keys.retries_of("workers", keys.stream(IM))
    before = redis.zscore(retries, run.pending.entry_id)
    went_back(redis, keys)
    clock.look()
    assert redis.zscore(retries, run.pending.entry_id) == before


def test_the_claim_of_a_retry_does_not_wait_longer_than_was_asked_for(
    redis, keys, guard, other_guard, publish
):
    run = claimed(redis, keys, guard, publish)
    guard.settle([Settlement(run, Outcome(retry_after=1.0, error="E"))])
    redis.hincrby(keys.state("workers", "ev1"), "due", HOURS)
    (answer,) = other_guard.claim([run.pending])
    assert isinstance(answer, Busy)
    assert 0 < answer.left <= 1


def test_what_a_dead_worker_held_is_taken_over_after_an_event_lease(redis, keys, publish, clock):
    publish("ev1", "ev2", "ev3")
    items = follower(redis, keys, "dead").read(10)
    guard = Guard(redis, keys, "workers", 0.05, "w1")
    guard.claim(items)
    other = follower(redis, keys, "alive", event_lease=0.05)
    delivered_ahead(redis, keys, [item.entry_id for item in items])
    for item in items:
        redis.pexpire("lock:" + keys.lock_name("workers", item.entry.event_id), HOURS)
    time.sleep(0.06)
    assert other.pending.take_over(10) == []
    went_back(redis, keys)
    clock.look()
    time.sleep(0.06)
    found = other.pending.take_over(10)
    assert ids(found) == ["ev1", "ev2", "ev3"]
    (busy, *_) = guard_of(redis, keys).claim(found)
    assert isinstance(busy, Busy)
    assert busy.left <= LEASE


def delivered_ahead(redis: Redis, keys: Keys, entry_ids: list[str]) -> None:
    """Have Redis note that they were delivered two hours from now, which no command can do."""
    noted: Any = now_ms(redis) - 1000
    redis.xclaim(keys.stream(IM), "workers", "dead", 0, entry_ids, time=noted, justid=True)
    dump = redis.dump(keys.stream(IM))[:-8]
    assert dump.count(noted.to_bytes(8, "little")) == len(entry_ids)
    for seen in range(noted, now_ms(redis) + 1):  # that of the consumer, too
        dump = dump.replace(seen.to_bytes(8, "little"), (seen + HOURS).to_bytes(8, "little"))
    redis.restore(keys.stream(IM), 0, dump + crc64(dump).to_bytes(8, "little"), replace=True)


def crc64(data: bytes) -> int:
    """Of Redis' dumps."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return crc


def guard_of(redis: Redis, keys: Keys) -> Guard:
    return Guard(redis, keys, "workers", LEASE, "w2")


def test_a_dead_consumer_is_idle_again_even_if_it_held_nothing(redis, keys, publish, clock):
    publish("ev1")
    (item,) = follower(redis, keys, "dead").read(10)
    delivered_ahead(redis, keys, [item.entry_id])
    redis.xack(keys.stream(IM), "workers", item.entry_id)
    time.sleep(0.01)
    assert idle(redis, keys) == 0
    went_back(redis, keys)
    clock.look()
    time.sleep(0.01)
    assert idle(redis, keys) > 0


def idle(redis: Redis, keys: Keys) -> int:
    """Ms for which the dead worker's consumer seems to have done nothing."""
    found: Any = redis.xinfo_consumers(keys.stream(IM), "workers")
    return {each["name"]: each["idle"] for each in found}[b"dead"]


def test_a_lock_is_not_cut_short_while_the_clock_is_right(redis, keys, guard, publish):
    run = claimed(redis, keys, guard, publish)
    redis.pexpire("lock:" + keys.lock_name("workers", "ev1"), HOURS)
    (busy,) = guard_of(redis, keys).claim([run.pending])
    assert isinstance(busy, Busy)
    assert busy.left > 3600


def test_it_is_mended_once_for_each_time_the_clock_went_back(redis, keys, clock, monkeypatch):
    pages: list[str] = []
    whole = StreamMending._do
    monkeypatch.setattr(
        StreamMending, "_do", lambda self, page: pages.append(page.script) or whole(self, page)
    )
    clock.look()
    assert pages == []
    for _ in range(2):
        went_back(redis, keys)
        clock.look()
        clock.look()
    assert pages == ["mend_retries", "mend_pending"] * 2
    redis.hset(keys.clock("workers"), "ahead", 1)
    clock.look()
    assert redis.hget(keys.clock("workers"), "ahead") == b"0"


def test_a_clock_key_of_another_type_stops_nothing(redis, keys, clock, guard, publish):
    redis.set(keys.clock("workers"), "by hand")
    assert clock.look()
    run = claimed(redis, keys, guard, publish)
    redis.pexpire("lock:" + keys.lock_name("workers", "ev1"), HOURS)
    assert isinstance(guard_of(redis, keys).claim([run.pending])[0], Busy)


def test_a_dead_worker_is_not_taken_for_one_at_work_by_a_sign_from_the_future(redis, keys):
    redis.zadd(keys.workers("workers"), {"dead": now_ms(redis) + HOURS})
    assert present(redis, keys, "workers") == []
