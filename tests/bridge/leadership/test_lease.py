"""The elector against a Redis, real or fake; its clock is the test's where time matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError

from flybridge.bridge.config.lease_timing import Timing
from flybridge.bridge.errors import LeaseLost
from flybridge.bridge.leadership.lease import RELEASE_TIMEOUT, LeaseElector, new_identity
from flybridge.bridge.store.streams import Keys
from tests.bridge.stand_ins import Candidate
from tests.waiting import eventually

FAST = Timing(lease_duration=0.6, renew_deadline=0.4, retry_period=0.05)


class Clock:
    """Real monotonic time, plus what the test adds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


async def lead_until_lost(leader: LeaseElector, act: Callable[[], Awaitable[object]]) -> None:
    async with leader.lead():
        await act()
        await asyncio.sleep(30)


def elector(
    redis: Redis,
    keys: Keys,
    name: str = "a",
    clock: Clock | None = None,
    candidate: Candidate | None = None,
) -> LeaseElector:
    return LeaseElector(
        redis, keys, name, candidate or Candidate(), timing=FAST, clock=clock or Clock()
    )


def test_no_two_identities_are_the_same() -> None:
    assert new_identity() != new_identity()


async def test_the_first_leads_and_the_second_waits_until_it_is_released(
    any_redis: Redis, keys: Keys
) -> None:
    first, second = elector(any_redis, keys, "a"), elector(any_redis, keys, "b")
    async with first.lead() as term:
        assert first.leads()
        waiting = asyncio.create_task(second.wait_until_leading())
        await eventually(lambda: second.holder == "a")
        assert not second.leads()
    assert await asyncio.wait_for(waiting, 1) > term
    assert not first.leads()
    await second.release()


async def test_a_standby_says_once_who_leads(any_redis: Redis, keys: Keys) -> None:
    first, second = elector(any_redis, keys, "a"), elector(any_redis, keys, "b")
    candidate = Candidate()
    standby = elector(any_redis, keys, "c", candidate=candidate)
    with structlog.testing.capture_logs() as logs:
        for leader in (first, second):
            async with leader.lead():
                waiting = asyncio.create_task(standby.wait_until_leading())
                asked = candidate.times_asked
                await eventually(lambda asked=asked: candidate.times_asked > asked + 3)
                waiting.cancel()
    told = [each["leader"] for each in logs if each["event"] == "bridge.stands_by"]
    assert told == ["a", "b"]


async def test_who_may_not_lead_looks_who_does_and_takes_nothing_though_it_is_free(
    any_redis: Redis, keys: Keys
) -> None:
    candidate = Candidate()
    candidate.stands = False
    leader = elector(any_redis, keys, "a")
    looking = elector(any_redis, keys, "b", candidate=candidate)
    async with leader.lead():
        waiting = asyncio.create_task(looking.wait_until_leading())
        await eventually(lambda: looking.holder == "a")
    await eventually(lambda: looking.holder == "")
    before, began = candidate.times_asked, time.monotonic()
    await eventually(lambda: candidate.times_asked > before + 5)
    assert time.monotonic() - began > 5 * FAST.retry_period / 2 * 0.8, "no more often than others"
    assert not waiting.done()
    assert await any_redis.hget(keys.lease, "holder") == b""
    candidate.stands = True
    assert await asyncio.wait_for(waiting, 1) > 0
    await looking.release()


async def test_renewals_keep_the_term_far_beyond_the_lease(real_redis: Redis, keys: Keys) -> None:
    clock = Clock()
    leader = elector(real_redis, keys, clock=clock)
    async with leader.lead() as term:
        beyond = clock() + 2 * FAST.lease_duration
        await eventually(lambda: (leader.answered_at or 0.0) > beyond)
        assert leader.leads()
        assert int(await real_redis.hget(keys.lease, "term")) == term
        assert 0 < leader.renew_seconds < 1


async def test_a_leader_that_another_overtook_is_cancelled_at_its_next_renewal(
    fake_redis: Redis, keys: Keys
) -> None:
    candidate = Candidate()
    leader = elector(fake_redis, keys, candidate=candidate)
    with pytest.raises(LeaseLost):
        await lead_until_lost(leader, lambda: fake_redis.hset(keys.lease, "holder", "b"))
    assert [(lost.reason, lost.holder) for lost in candidate.losses] == [("taken", "b")]
    assert await fake_redis.hget(keys.lease, "holder") == b"b", "no release of what is not ours"


async def test_a_redis_that_hangs_ends_the_leadership_at_the_deadline(
    real_redis: Redis, keys: Keys
) -> None:
    leader = elector(real_redis, keys)
    started = time.monotonic()
    with pytest.raises(LeaseLost):
        await lead_until_lost(leader, lambda: real_redis.client_pause(1_500))
    assert time.monotonic() - started < FAST.renew_deadline + RELEASE_TIMEOUT + 0.3


async def test_after_a_call_without_an_answer_no_old_connection_is_tried(
    real_redis: Redis, keys: Keys
) -> None:
    leader = elector(real_redis, keys)
    async with leader.lead():
        await asyncio.gather(*(real_redis.ping() for _ in range(4)))
        idle = [row["id"] for row in await real_redis.client_list() if row["name"] == ""]
        assert len(idle) >= 4
        failures = leader.failures
        await real_redis.client_pause(int(FAST.renew_deadline * 600))
        await eventually(lambda: leader.failures > failures)
        left = {row["id"] for row in await real_redis.client_list()}
        assert not left & set(idle)


@pytest.mark.parametrize("error", ["BUSY a script runs", "MISCONF no disk", "LOADING", "OOM"])
async def test_error_replies_for_less_than_the_deadline_cost_no_leadership(
    monkeypatch: pytest.MonkeyPatch,
    fake_redis: Redis,
    keys: Keys,
    error: str,
) -> None:
    leader = elector(fake_redis, keys)
    working = fake_redis.evalsha

    async def refuse(*arguments: object) -> object:
        raise ResponseError(error)

    async with leader.lead() as term:
        monkeypatch.setattr(fake_redis, "evalsha", refuse)
        await eventually(lambda: leader.failures >= 3)
        assert leader.leads()
        monkeypatch.setattr(fake_redis, "evalsha", working)
        renewed = leader.answered_at
        await eventually(lambda: leader.answered_at != renewed)
        assert leader.term == term


async def test_after_a_pause_of_the_process_the_first_look_steps_down(
    fake_redis: Redis, keys: Keys
) -> None:
    clock = Clock()
    candidate = Candidate()
    leader = elector(fake_redis, keys, clock=clock, candidate=candidate)

    async def wake_up_much_later() -> None:
        clock.ahead = 30.0  # and nothing of the loop has run since
        assert not leader.leads()
        assert [lost.reason for lost in candidate.losses] == ["deadline"]

    with pytest.raises(LeaseLost):
        await lead_until_lost(leader, wake_up_much_later)


async def test_a_fenced_publish_ends_the_leadership(fake_redis: Redis, keys: Keys) -> None:
    leader = elector(fake_redis, keys)

    async def be_fenced() -> None:
        leader.fenced(leader.term + 1)

    with pytest.raises(LeaseLost):
        await lead_until_lost(leader, be_fenced)
    assert leader.term == 0


async def test_a_mistake_of_the_body_comes_out_and_the_lease_is_given_back(
    fake_redis: Redis, keys: Keys
) -> None:
    leader = elector(fake_redis, keys)
    with pytest.raises(ZeroDivisionError):
        async with leader.lead():
            raise ZeroDivisionError
    assert await fake_redis.hget(keys.lease, "holder") == b""


async def test_a_timeout_of_the_body_is_not_taken_for_a_lost_lease(
    fake_redis: Redis, keys: Keys
) -> None:
    with pytest.raises(TimeoutError):
        async with elector(fake_redis, keys).lead():
            raise TimeoutError


@pytest.mark.parametrize("granted", ["before", "after"])
async def test_a_grant_that_a_stopped_standby_never_heard_of_does_not_last(
    monkeypatch: pytest.MonkeyPatch,
    real_redis: Redis,
    keys: Keys,
    granted: str,
) -> None:
    """Redis may carry the call out after the release: its connection was the slower one."""
    candidate, working, late = elector(real_redis, keys), real_redis.evalsha, []

    async def reply_lost(*arguments: object) -> object:
        if "hold" not in arguments:
            return await working(*arguments)
        late.append(arguments)
        if granted == "before":
            await working(*arguments)
        raise ConnectionError("no reply")

    await candidate.wait_until_leading()
    await candidate.release()
    monkeypatch.setattr(real_redis, "evalsha", reply_lost)
    waiting = asyncio.create_task(candidate.wait_until_leading())
    await eventually(lambda: late)
    waiting.cancel()
    await candidate.release()
    if granted == "after":
        assert (await working(*late[0]))[0] == 0
    assert await real_redis.hget(keys.lease, "holder") == b""
    monkeypatch.setattr(real_redis, "evalsha", working)
    assert await elector(real_redis, keys, "b").wait_until_leading() > 0


async def test_calls_that_redis_carries_out_late_change_nothing(
    monkeypatch: pytest.MonkeyPatch, real_redis: Redis, keys: Keys
) -> None:
    """As when the process was told to stop, and their connections were slow."""
    leader, working, sent = elector(real_redis, keys), real_redis.evalsha, {}

    async def recorded(*arguments: object) -> object:
        sent[arguments[3]] = arguments
        return await working(*arguments)

    monkeypatch.setattr(real_redis, "evalsha", recorded)
    await leader.wait_until_leading()
    await leader.release()
    hold, release = sent["hold"], sent["release"]
    assert (await working(*hold))[0] == 0
    assert await real_redis.hget(keys.lease, "holder") == b""
    assert await leader.wait_until_leading() > 0, "it may stand again"
    await working(*release)
    assert await real_redis.hget(keys.lease, "holder") == b"a"


async def test_who_never_asked_for_the_lease_leaves_no_trace(any_redis: Redis, keys: Keys) -> None:
    await elector(any_redis, keys).release()
    assert not await any_redis.exists(keys.lease)


async def test_a_leader_whose_machine_was_suspended_knows_that_its_lease_has_run_out(
    monkeypatch: pytest.MonkeyPatch, fake_redis: Redis, keys: Keys
) -> None:
    """The monotonic clock stands still meanwhile."""
    leader = LeaseElector(fake_redis, keys, "a", Candidate(), timing=FAST)
    await leader.wait_until_leading()
    assert leader.leads()
    awake, clock_gettime = time.monotonic(), time.clock_gettime
    slept = {time.CLOCK_BOOTTIME: 3600.0}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: clock_gettime(clock) + slept[clock])
    assert time.monotonic() - awake < FAST.renew_deadline
    assert not leader.leads()


async def test_a_record_edited_by_hand_does_not_keep_everybody_out(
    any_redis: Redis, keys: Keys
) -> None:
    odd = {"holder": "x", "term": "x", "renewed_at": "inf", "lease_duration": "nan"}
    await any_redis.hset(keys.lease, mapping=odd)  # type: ignore[arg-type]
    assert await elector(any_redis, keys).wait_until_leading() > 1


async def test_a_lease_that_is_no_hash_is_told_of_once(any_redis: Redis, keys: Keys) -> None:
    await any_redis.set(keys.lease, "x")
    candidate = elector(any_redis, keys)
    with structlog.testing.capture_logs() as logs:
        waiting = asyncio.create_task(candidate.wait_until_leading())
        await eventually(lambda: candidate.failures >= 3)
        await any_redis.delete(keys.lease)
        assert await asyncio.wait_for(waiting, 2) > 0
    assert [each["key"] for each in logs if each["event"] == "key.spoilt"] == [keys.lease]


async def test_a_standby_outlives_a_redis_that_is_away(
    monkeypatch: pytest.MonkeyPatch, fake_redis: Redis, keys: Keys
) -> None:
    candidate = elector(fake_redis, keys)
    working = fake_redis.evalsha

    async def away(*arguments: object) -> object:
        raise ConnectionError("refused")

    monkeypatch.setattr(fake_redis, "evalsha", away)
    waiting = asyncio.create_task(candidate.wait_until_leading())
    await eventually(lambda: candidate.failures >= 2)
    monkeypatch.setattr(fake_redis, "evalsha", working)
    assert await asyncio.wait_for(waiting, 2) > 0
