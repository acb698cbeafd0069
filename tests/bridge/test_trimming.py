"""Trimming, on fakeredis, Redis and Valkey: what may go, what stays, and who is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError
from structlog.testing import capture_logs

from bridge.redis_client import async_client
from bridge.streams import Keys
from bridge.trimming import STEP, Trimmer

RETENTION = 3600.0
OLD, YOUNG = 7200, 60
"""Seconds since an entry was published; the retention lies between."""

IM = "im.message.receive_v1"
EVENT = {"event_id": "ev", "envelope": "{}"}


async def publish(redis: Redis, keys: Keys, *ages: int, event_type: str = IM) -> list[bytes]:
    """Entries published so many seconds ago, oldest first."""
    now = int(time.time() * 1000)
    await redis.sadd(keys.types, event_type)
    async with redis.pipeline(transaction=False) as pipeline:
        for number, age in enumerate(ages):
            pipeline.xadd(keys.stream(event_type), EVENT, id=f"{now - age * 1000}-{number}")
        ids: list[bytes] = await pipeline.execute()
    return ids


async def read(
    redis: Redis, stream: str, group: str, count: int = 100_000, *, acknowledge: int = 0
) -> list[bytes]:
    """Have a group, made when it is not there, read entries and acknowledge the first ones."""
    with suppress(ResponseError):  # it is there
        await redis.xgroup_create(stream, group, "0", mkstream=True)
    batches: Any = await redis.xreadgroup(group, "c1", {stream: ">"}, count=count)
    ids = [entry_id for entry_id, _ in batches[0][1]] if batches else []
    if acknowledge:
        await redis.xack(stream, group, *ids[:acknowledge])
    return ids


async def left(redis: Redis, stream: str) -> list[bytes]:
    return [entry_id for entry_id, _ in await redis.xrange(stream)]


def old(ids: Sequence[bytes]) -> list[bytes]:
    past = (time.time() - RETENTION) * 1000
    return [entry_id for entry_id in ids if int(entry_id.split(b"-")[0]) < past]


def events(logs: Sequence[Any], name: str) -> list[Any]:
    return [line for line in logs if line["event"] == name]


@pytest.fixture
def trimmer(any_redis: Redis, keys: Keys) -> Trimmer:
    return Trimmer(any_redis, keys, RETENTION)


@pytest.fixture
def stream(keys: Keys) -> str:
    return keys.stream(IM)


class TestWhatGoes:
    async def test_old_entries_that_the_group_has_acknowledged_go_and_young_ones_stay(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, OLD, OLD, OLD, YOUNG, YOUNG)
        await read(any_redis, stream, "workers", acknowledge=5)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[3:]
        assert trimmer.trimmed == 3

    async def test_a_pending_entry_and_all_after_it_stay(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 6)
        await read(any_redis, stream, "workers", acknowledge=6)
        more = await publish(any_redis, keys, *[OLD - 100] * 4)
        await read(any_redis, stream, "workers")
        await any_redis.xack(stream, "workers", more[0], more[2])
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == more[1:]
        assert await any_redis.xlen(stream) < len(ids)

    async def test_an_unread_entry_and_all_after_it_stay(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 5)
        await read(any_redis, stream, "workers", 2, acknowledge=2)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[2:]

    async def test_a_stream_that_no_group_has_read_is_left_alone(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, OLD, OLD)
        await trimmer.trim(0)
        assert await left(any_redis, stream) == ids

    @pytest.mark.parametrize("covered", ["*", "queue:im", f"type:{IM}"])
    async def test_a_group_that_subscribed_and_has_not_joined_yet_holds_everything(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer, covered: str
    ) -> None:
        ids = await publish(any_redis, keys, OLD, OLD)
        await read(any_redis, stream, "audit", acknowledge=2)
        await any_redis.sadd(keys.subscriptions, f"workers|{covered}", "audit|*")
        with capture_logs() as logs:
            await trimmer.trim(0)
        assert await left(any_redis, stream) == ids
        (line,) = events(logs, "group.lagging")
        assert (line["group"], line["lag"]) == ("workers", 2)
        await read(any_redis, stream, "workers", acknowledge=2)
        await trimmer.trim(0)
        assert await left(any_redis, stream) == []

    @pytest.mark.parametrize("covered", ["queue:contact", "type:contact.user.created_v3"])
    async def test_a_group_that_reads_other_types_holds_nothing(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer, covered: str
    ) -> None:
        await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "workers", acknowledge=1)
        await any_redis.sadd(keys.subscriptions, f"audit|{covered}")
        await trimmer.trim(0)
        assert await left(any_redis, stream) == []

    async def test_the_slowest_of_several_groups_counts(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 6)
        await read(any_redis, stream, "workers", acknowledge=6)
        await read(any_redis, stream, "audit", 4, acknowledge=2)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[2:]

    async def test_a_group_that_was_destroyed_holds_nothing(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, OLD, OLD)
        await read(any_redis, stream, "workers", acknowledge=2)
        await read(any_redis, stream, "audit")
        await trimmer.trim(RETENTION)
        assert await any_redis.xlen(stream) == 2
        await any_redis.xgroup_destroy(stream, "audit")
        await trimmer.trim(RETENTION)
        assert await any_redis.xlen(stream) == 0

    async def test_a_group_set_back_by_hand_is_given_what_is_still_there(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 4)
        await read(any_redis, stream, "workers", acknowledge=3)
        await any_redis.xgroup_setid(stream, "workers", ids[0])
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[1:]

    async def test_a_large_backlog_goes_in_steps_to_the_last_entry(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        count = 3 * STEP + 57
        await publish(any_redis, keys, *[OLD] * count, YOUNG)
        await read(any_redis, stream, "workers", acknowledge=count + 1)
        await trimmer.trim(RETENTION)
        assert await any_redis.xlen(stream) == 1
        assert trimmer.trimmed == count

    async def test_ids_of_many_digits_are_not_rounded(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        """As numbers, the last two would be the same to Lua."""
        await any_redis.sadd(keys.types, IM)
        ids = [b"9-1", b"10-18446744073709551613", b"10-18446744073709551614"]
        for entry_id in ids:
            await any_redis.xadd(stream, EVENT, id=entry_id)
        await read(any_redis, stream, "workers", 2, acknowledge=2)
        await read(any_redis, stream, "audit", acknowledge=1)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[1:]

    async def test_keys_spoilt_by_hand_stop_nothing(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await any_redis.sadd(keys.types, "a.wrong.type", b"\xff\xfe", "never.published")
        await any_redis.set(keys.stream("a.wrong.type"), "x")
        await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "workers", acknowledge=1)
        await read(any_redis, stream, b"\xff", acknowledge=1)  # type: ignore[arg-type]
        await trimmer.trim(RETENTION)
        assert await any_redis.xlen(stream) == 0


class TestReplayStreams:
    async def test_what_its_group_has_acknowledged_goes_at_once(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await read(any_redis, stream, "workers")
        await any_redis.sadd(keys.types, IM)
        await any_redis.sadd(keys.replays("workers"), IM)
        replay = keys.replay("workers", IM)
        just_now = int((time.time() - YOUNG) * 1000)
        ids = [await any_redis.xadd(replay, EVENT, id=f"{just_now}-{seq}") for seq in range(4)]
        await read(any_redis, replay, "workers", acknowledge=3)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        assert await left(any_redis, replay) == ids[3:]
        assert not events(logs, "group.lagging"), "one of them is in work, that is all"


class TestLaggingGroups:
    async def test_a_group_that_holds_entries_past_the_retention_is_told_of_once(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, OLD, OLD, YOUNG)
        await read(any_redis, stream, "workers", acknowledge=3)
        await read(any_redis, stream, "audit", 2, acknowledge=1)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
            await trimmer.trim(RETENTION)
        (line,) = events(logs, "group.lagging")
        assert (line["stream"], line["group"], line["pending"]) == (stream, "audit", 1)
        assert line["oldest"] == ids[1].decode()
        assert OLD <= line["age"] < OLD + 60
        assert line["cure"].endswith("flybridge groups forget audit")
        assert trimmer.lagging == 1

    async def test_it_is_told_when_the_group_has_caught_up_and_told_anew_when_it_lags_anew(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        (first,) = await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "workers")
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
            await any_redis.xack(stream, "workers", first)
            await trimmer.trim(RETENTION)
            assert trimmer.lagging == 0
            await publish(any_redis, keys, OLD - 1)
            await trimmer.trim(RETENTION)
        told = [line["event"] for line in logs if line["event"].startswith("group.")]
        assert told == ["group.lagging", "group.caught_up", "group.lagging"]

    async def test_a_group_that_has_read_all_does_not_lag_however_old_the_last_entry_is(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "workers", acknowledge=1)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        assert not events(logs, "group.lagging")

    async def test_a_group_busy_with_young_entries_does_not_lag(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, YOUNG, YOUNG)
        await read(any_redis, stream, "workers", 1)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        assert not events(logs, "group.lagging")

    async def test_a_lagging_group_that_is_destroyed_is_forgotten(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "audit")
        await trimmer.trim(RETENTION)
        assert trimmer.lagging == 1
        await any_redis.xgroup_destroy(stream, "audit")
        await trimmer.trim(RETENTION)
        assert trimmer.lagging == 0

    async def test_a_lag_that_redis_does_not_know_is_called_unknown(
        self, real_redis: Redis, keys: Keys, stream: str
    ) -> None:
        ids = await publish(real_redis, keys, *[OLD] * 4)
        await read(real_redis, stream, "workers", 1, acknowledge=1)
        await real_redis.xdel(stream, ids[2])
        (group,) = await real_redis.xinfo_groups(stream)
        assert group["lag"] is None
        with capture_logs() as logs:
            await Trimmer(real_redis, keys, RETENTION).trim(RETENTION)
        (line,) = events(logs, "group.lagging")
        assert (line["lag"], line["oldest"]) == ("unknown", ids[1].decode())


class TestAnyHistory:
    """Whatever groups did before: no entry goes that one of them could still be given."""

    @given(
        ages=st.lists(st.integers(0, 2 * int(RETENTION)), max_size=30),
        groups=st.lists(
            st.tuples(st.integers(1, 30), st.sets(st.integers(0, 29))), min_size=1, max_size=3
        ),
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    async def test_exactly_what_is_old_and_before_all_that_is_unsettled_goes(
        self,
        real_url: str,
        keys: Keys,
        stream: str,
        ages: list[int],
        groups: list[tuple[int, set[int]]],
    ) -> None:
        redis = async_client(real_url)
        await redis.flushall()
        ids = await publish(redis, keys, *sorted(ages, reverse=True))
        unsettled: set[bytes] = set()
        for number, (count, acknowledged) in enumerate(groups):
            given_ids = await read(redis, stream, f"g{number}", count)
            done = {given_ids[index] for index in acknowledged if index < len(given_ids)}
            if done:
                await redis.xack(stream, f"g{number}", *done)
            unsettled |= set(ids) - done
        held = min((ids.index(entry_id) for entry_id in unsettled), default=len(ids))
        at_least = len(old(ids[:held]))
        await Trimmer(redis, keys, RETENTION).trim(RETENTION)
        at_most = len(old(ids[:held]))
        remaining = await left(redis, stream)
        await redis.aclose()
        assert ids[len(ids) - len(remaining) :] == remaining
        assert at_least <= len(ids) - len(remaining) <= at_most


class TestFullRedis:
    async def test_trimming_frees_memory_when_nothing_else_may_be_written(
        self, real_redis: Redis, keys: Keys, stream: str
    ) -> None:
        await publish(real_redis, keys, *[OLD] * 5000)
        await read(real_redis, stream, "workers", acknowledge=5000)
        before = await real_redis.memory_usage(stream, samples=0)
        await real_redis.config_set("maxmemory", 1)
        try:
            await Trimmer(real_redis, keys, RETENTION).trim(RETENTION)
        finally:
            await real_redis.config_set("maxmemory", 0)
        assert await real_redis.xlen(stream) == 0
        assert (await real_redis.memory_usage(stream, samples=0) or 0) < before / 10


class TestRun:
    async def test_it_goes_on_trimming(
        self,
        real_redis: Redis,
        keys: Keys,
        stream: str,
        eventually: Callable[..., Awaitable[None]],
    ) -> None:
        trimmer = Trimmer(real_redis, keys, RETENTION)
        trimmer.period = 0.01
        running = asyncio.create_task(trimmer.run())
        for number in range(1, 4):
            await publish(real_redis, keys, OLD - number)
            await read(real_redis, stream, "workers", acknowledge=1)
            await eventually(lambda number=number: trimmer.trimmed == number)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()

    async def test_the_period_is_a_share_of_a_short_retention(
        self, fake_redis: Redis, keys: Keys
    ) -> None:
        assert Trimmer(fake_redis, keys, 1.0).period == 0.5
        assert Trimmer(fake_redis, keys, 86_400.0).period == 30.0

    async def test_short_of_memory_it_trims_at_once_what_is_acknowledged_however_young(
        self,
        real_redis: Redis,
        keys: Keys,
        stream: str,
        monkeypatch: pytest.MonkeyPatch,
        eventually: Callable[..., Awaitable[None]],
    ) -> None:
        ids = await publish(real_redis, keys, YOUNG, YOUNG, YOUNG)
        await read(real_redis, stream, "workers", acknowledge=2)
        trimmer = Trimmer(real_redis, keys, RETENTION)
        trimmer.period = 0.01
        rounds: list[float] = []
        trim = trimmer.trim

        async def noted(retention: float) -> None:
            await trim(retention)
            rounds.append(retention)

        monkeypatch.setattr(trimmer, "trim", noted)
        running = asyncio.create_task(trimmer.run())
        await eventually(lambda: rounds)
        trimmer.relieve()
        await eventually(lambda: trimmer.trimmed == 2)
        assert await left(real_redis, stream) == ids[2:]
        assert trimmer.lagging == 0
        relieved = len(rounds)
        await eventually(lambda: len(rounds) > relieved + 3)
        assert rounds.count(0.0) == 1
        running.cancel()
        await asyncio.wait({running})

    async def test_it_survives_a_redis_that_is_gone_and_says_so_once(
        self,
        real_redis: Redis,
        keys: Keys,
        monkeypatch: pytest.MonkeyPatch,
        eventually: Callable[..., Awaitable[None]],
    ) -> None:
        trimmer = Trimmer(real_redis, keys, RETENTION)
        trimmer.period = 0.001
        rounds = 0

        async def refuse(retention: float) -> None:
            nonlocal rounds
            rounds += 1
            if rounds < 4:
                raise ConnectionError("gone")

        monkeypatch.setattr(trimmer, "trim", refuse)
        with capture_logs() as logs:
            running = asyncio.create_task(trimmer.run())
            await eventually(lambda: rounds > 5)
            running.cancel()
            await asyncio.wait({running})
        assert [line["event"] for line in logs] == ["trim.failed", "trim.recovered"]
