"""The lock for work outside the bulk path: kept while the work runs, honest when it is lost."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis_lock
from redis import Redis
from redis.exceptions import ConnectionError
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import Keys
from flybridge.workers.locks import EventLock, LockLost, LockTaken
from tests.waiting import until

Make = Callable[[str], EventLock]


@pytest.fixture
def make(redis: Redis, keys: Keys) -> Make:
    """Locks of one event, by the tokens of their owners; a second of lease."""
    return lambda token: EventLock(redis, keys, "workers", "ev1", token, event_lease=1)


@pytest.fixture
def key(keys: Keys) -> str:
    return "lock:" + keys.lock_name("workers", "ev1")


def test_it_is_kept_as_long_as_the_work_runs(make, redis, key):
    with make("a") as lock:
        ends = time.monotonic() + 1.3
        until(lambda: time.monotonic() > ends)
        assert not make("b").acquire()
        lock.check()
        assert not lock.lost
    assert not redis.exists(key)
    assert not lock.lost


def test_another_waits_for_its_release_and_no_longer_than_it_says(make):
    with make("a"), pytest.raises(LockTaken, match="another holds"), make("b"):
        pass
    began = time.monotonic()
    with make("a"):
        assert not make("b").acquire(blocking=True, timeout=0.3)
    assert time.monotonic() - began < 2
    assert make("b").acquire(blocking=True, timeout=0.3)


def test_who_waits_gets_what_a_crash_has_left_behind(make, redis, key):
    redis.set(key, "of a dead one", px=200)
    assert make("a").acquire(blocking=True, timeout=3)


def test_what_the_work_returns_is_not_hidden_by_the_loss_of_the_lock(make, redis, key):
    def work() -> str:
        with make("a") as lock:
            redis.set(key, "another")
            until(lambda: lock.lost)
            with pytest.raises(LockLost, match="not held any more"):
                lock.check()
            return "done"

    with capture_logs() as logs:
        assert work() == "done"
    assert [line["event"] for line in logs] == ["lock.lost"]
    assert redis.get(key) == b"another"


def test_what_the_work_raises_is_not_hidden_either(make, redis, key):
    def work() -> None:
        with make("a"):
            redis.delete(key)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_a_lock_that_was_lost_unnoticed_is_told_of_at_the_release(make, redis, key):
    lock = make("a")
    assert lock.acquire()
    redis.delete(key)
    with capture_logs() as logs:
        assert lock.release() is False
    assert lock.lost
    assert [line["event"] for line in logs] == ["lock.lost"]
    assert lock.release() is False


def test_a_renewal_that_fails_is_tried_again(make, monkeypatch):
    lock, failures = make("a"), iter([ConnectionError("away")] * 2)
    renew, renewed = lock.extend, []

    def extend() -> None:
        for failure in failures:
            raise failure
        renew()
        renewed.append(time.monotonic())

    monkeypatch.setattr(lock, "extend", extend)
    monkeypatch.setattr("flybridge.workers.locks.RETRY_AFTER", 0.05)
    with lock:
        until(lambda: len(renewed) > 1)
        assert not lock.lost


def test_a_redis_that_stays_away_loses_it_when_it_may_be_another_s(make, monkeypatch):
    lock = make("a")

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(lock, "extend", away)
    monkeypatch.setattr(lock, "unlock_script", away)
    with capture_logs() as logs:
        began = time.monotonic()
        with lock:
            until(lambda: lock.lost)
    assert time.monotonic() - began >= 1
    assert {line["event"] for line in logs} == {"lock.lost", "lock.left"}


def test_a_process_that_stood_still_does_not_believe_in_its_lock(make):
    lock = make("a")
    assert lock.acquire()
    lock._sure_until = time.monotonic() - 1
    assert lock.lost
    assert lock.release() is False


def test_a_lock_whose_reply_was_lost_is_ours_all_the_same(make, redis, monkeypatch):
    whole = redis.set

    def set_twice(*args: Any, **options: Any) -> Any:
        whole(*args, **options)
        return whole(*args, **options)

    monkeypatch.setattr(redis, "set", set_twice)
    lock = make("a")
    assert lock.acquire()
    assert lock.release() is True


def test_locks_of_the_library_work_beside_it(make, redis, monkeypatch):
    monkeypatch.setattr(redis_lock, "reset_all_script", None)
    for script in ("unlock_script", "extend_script", "reset_script", "reset_all_script"):
        monkeypatch.setattr(redis_lock.Lock, script, None)
    make("a")
    with redis_lock.Lock(redis, "other", expire=5):
        pass


def test_a_token_that_holds_it_already_does_not_take_it_twice(make):
    lock = make("a")
    assert lock.acquire()
    for same in (lock, make("a")):
        with pytest.raises(redis_lock.AlreadyAcquired):
            same.acquire()
    assert lock.release() is True
    with lock:
        assert not lock.lost


def test_a_lock_that_everybody_has_forgotten_is_renewed_no_more(make, redis, key):
    lock = make("a")
    assert lock.acquire()
    del lock
    gc.collect()
    until(lambda: not redis.exists(key))


async def test_it_works_on_an_event_loop(make, redis, key):
    async with make("a") as lock:
        assert not make("b").acquire()
        await asyncio.sleep(0)
        assert not lock.lost
    assert not redis.exists(key)
    with pytest.raises(ZeroDivisionError):
        async with make("a"):
            raise ZeroDivisionError
    assert not redis.exists(key)


async def test_who_is_cancelled_while_waiting_holds_nothing_afterwards(make, redis, key):
    held, waiting = make("a"), make("b")
    assert held.acquire()
    entering = asyncio.create_task(waiting.__aenter__())
    await asyncio.sleep(0.1)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert held.release() is True
    # Its thread may get the lock for a moment, and gives it back.
    assert await asyncio.to_thread(make("c").acquire, blocking=True, timeout=5)
    assert waiting._end is None


async def test_who_is_cancelled_at_work_gives_it_back(make, redis, key):
    at_work = asyncio.Event()

    async def work() -> None:
        async with make("a"):
            at_work.set()
            await asyncio.sleep(60)

    working = asyncio.create_task(work())
    await at_work.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert not redis.exists(key)
