"""Trimming, on fakeredis, Redis and Valkey: what may go, what stays, and who is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError
from structlog.testing import capture_logs

from flybridge.bridge.housekeeping import trimming
from flybridge.bridge.housekeeping.trimming import STEP, Trimmer
from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.streams import Keys
from tests.waiting import eventually

RETENTION = 3600.0
OLD, YOUNG = 7200, 60
"""Seconds since an entry was published; the retention lies between."""

AHEAD = -30 * 86_400
"""The same by a clock that was ahead for a month."""

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

    async def test_ids_of_a_clock_that_was_ahead_keep_nothing_for_ever(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        """Their entries go when they have been there for the retention, or soon after."""

        async def pass_by() -> None:
            since, _, rest = (await any_redis.hget(keys.ages, stream)).partition(b"|")
            earlier = int(since) - int(RETENTION * 1000)
            await any_redis.hset(keys.ages, stream, b"%d|%s" % (earlier, rest))
            await trimmer.trim(RETENTION)

        ids = await publish(any_redis, keys, YOUNG, *[AHEAD] * 3)
        await read(any_redis, stream, "workers", acknowledge=4)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids
        later = [(await any_redis.xadd(stream, EVENT)) for _ in range(2)]
        await read(any_redis, stream, "workers", acknowledge=1)
        await pass_by()
        assert await left(any_redis, stream) == later
        await pass_by()
        assert await left(any_redis, stream) == later[1:], "it is pending"

    async def test_short_of_memory_they_go_at_once(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, YOUNG, *[AHEAD] * 3)
        await read(any_redis, stream, "workers", acknowledge=4)
        await trimmer.trim(0.0)
        assert await left(any_redis, stream) == []

    async def test_what_waits_among_them_keeps_only_itself(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[AHEAD] * 4)
        await read(any_redis, stream, "workers")
        await any_redis.xack(stream, "workers", ids[1], ids[2])
        await trimmer.trim(0.0)
        assert await left(any_redis, stream) == [ids[0], ids[3]]

    async def test_what_the_right_clock_says_counts_again_when_it_has_caught_up(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await any_redis.hset(keys.ages, stream, "1|9-9|8-8")
        ids = await publish(any_redis, keys, OLD, YOUNG)
        await read(any_redis, stream, "workers", acknowledge=2)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[1:]
        assert not await any_redis.exists(keys.ages)

    async def test_pending_entries_stay_and_what_is_done_behind_them_goes(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, *[OLD] * 6)
        await read(any_redis, stream, "workers", acknowledge=6)
        more = await publish(any_redis, keys, *[OLD - 100] * 4)
        await read(any_redis, stream, "workers")
        await any_redis.xack(stream, "workers", more[0], more[2])
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == [more[1], more[3]]
        assert trimmer.trimmed == 8

    @pytest.mark.parametrize("retention", [RETENTION, 0.0], ids=["old", "short of memory"])
    async def test_one_entry_that_waits_for_its_retry_keeps_nothing_but_itself(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer, retention: float
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD if retention else YOUNG] * 3_000)
        given_ids = await read(any_redis, stream, "workers", 3_000)
        await any_redis.xack(stream, "workers", *given_ids[1:])
        await any_redis.zadd(keys.retries_of("workers", stream), {ids[0]: 1e15})
        await trimmer.trim(retention)
        # The last one that was given stays, so that Redis knows the lag of the group.
        assert await left(any_redis, stream) == [ids[0], ids[-1]]
        await publish(any_redis, keys, 1)
        (group,) = await any_redis.xinfo_groups(stream)
        assert (group["pending"], group["lag"]) == (1, 1)
        pending: Any = await any_redis.xclaim(stream, "workers", "c2", 0, [ids[0]])
        assert [entry_id for entry_id, _ in pending] == [ids[0]]

    async def test_behind_a_held_entry_each_group_keeps_what_it_needs(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 12)
        await read(any_redis, stream, "workers", 12)
        await any_redis.xack(stream, "workers", *ids[1:6], *ids[7:])
        await read(any_redis, stream, "audit", 10)
        await any_redis.xack(stream, "audit", *ids[:3], *ids[4:10])
        await trimmer.trim(RETENTION)
        # workers: 0, 6; audit: 3, what it has not read, and the last that it was given
        assert await left(any_redis, stream) == [ids[n] for n in (0, 3, 6, 9, 10, 11)]

    async def test_a_group_that_has_not_joined_yet_keeps_what_is_done_behind_a_held_entry(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 5)
        await read(any_redis, stream, "workers")
        await any_redis.xack(stream, "workers", *ids[1:])
        await any_redis.sadd(keys.subscriptions, "audit|*")
        await trimmer.trim(0)
        assert await left(any_redis, stream) == ids

    async def test_many_held_entries_are_looked_through_by_and_by(
        self,
        any_redis: Redis,
        keys: Keys,
        stream: str,
        trimmer: Trimmer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(trimming, "FRUITLESS", 2)
        ids = await publish(any_redis, keys, *[OLD] * 2_000)
        await read(any_redis, stream, "workers")
        await any_redis.xack(stream, "workers", *ids[1_500:1_900])
        for _ in range(4):
            await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == [*ids[:1_500], *ids[1_900:]]
        await any_redis.xack(stream, "workers", ids[1])
        for _ in range(6):
            await trimmer.trim(RETENTION)
        assert await any_redis.xlen(stream) == 1_599

    async def test_large_entries_behind_a_held_one_go_page_by_page(
        self, real_redis: Redis, keys: Keys, stream: str
    ) -> None:
        await real_redis.sadd(keys.types, IM)
        old_ms = int((time.time() - OLD) * 1000)
        for number in range(12):
            await real_redis.xadd(stream, {"envelope": "x" * 500_000}, id=f"{old_ms}-{number}")
        ids = await read(real_redis, stream, "workers")
        await real_redis.xack(stream, "workers", *ids[1:])
        await Trimmer(real_redis, keys, RETENTION).trim(RETENTION)
        assert await left(real_redis, stream) == [ids[0], ids[-1]]

    async def test_a_stream_that_redis_refuses_to_trim_stops_no_other(
        self, any_redis: Redis, keys: Keys, trimmer: Trimmer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with a user whose rights do not reach it."""
        for event_type in (IM, "a.first_v1"):
            await publish(any_redis, keys, OLD, event_type=event_type)
            await read(any_redis, keys.stream(event_type), "workers", acknowledge=1)
        run = trimmer._run

        async def refused(script: str, streams: Sequence[str], told: Sequence[Any]) -> Any:
            if streams[0] == keys.stream("a.first_v1"):
                raise ResponseError("NOPERM")
            return await run(script, streams, told)

        monkeypatch.setattr(trimmer, "_run", refused)
        with pytest.raises(ResponseError, match="NOPERM"):
            await trimmer.trim(RETENTION)
        assert await left(any_redis, keys.stream(IM)) == []

    async def test_an_unread_entry_and_all_after_it_stay(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, *[OLD] * 5)
        await read(any_redis, stream, "workers", 2, acknowledge=2)
        await trimmer.trim(RETENTION)
        assert await left(any_redis, stream) == ids[2:]

    async def test_a_stream_that_no_group_reads_is_left_alone_and_told_of(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        ids = await publish(any_redis, keys, OLD, OLD)
        await any_redis.sadd(keys.subscriptions, "audit|queue:contact")
        with capture_logs() as logs:
            await trimmer.trim(0)
            await trimmer.trim(0)
        assert await left(any_redis, stream) == ids
        (line,) = events(logs, "stream.unread")
        assert (line["stream"], line["count"], line["oldest"]) == (stream, 2, ids[0].decode())
        assert "start a worker whose queues have this type" in line["cure"]
        assert f"redis-cli XTRIM {stream} MAXLEN 0" in line["cure"]
        assert (trimmer.backlog.unread, trimmer.backlog.lagging) == (1, 0)
        await read(any_redis, stream, "workers", acknowledge=2)
        with capture_logs() as logs:
            await trimmer.trim(0)
        assert [line["event"] for line in logs if line["log_level"] == "info"] == ["stream.read"]
        assert trimmer.backlog.unread == 0

    async def test_a_stream_that_was_made_a_moment_ago_may_be_unread(
        self, any_redis: Redis, keys: Keys, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, YOUNG)
        await trimmer.trim(RETENTION)
        assert trimmer.backlog.unread == 0

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
        with pytest.raises(ResponseError, match=r"WRONGTYPE .*a\.wrong\.type"):
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
        assert (line["oldest"], line["event_id"]) == (ids[1].decode(), "ev")
        assert line["holds"] == "unsettled"
        assert OLD <= line["age"] < OLD + 60
        assert line["cure"].endswith("flybridge groups forget audit")
        assert trimmer.backlog.lagging == 1

    async def test_what_waits_for_its_retry_is_named_and_hides_no_group_that_lags_behind_it(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        (waiting,) = await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "workers")
        due = (time.time() + 86_400) * 1000
        await any_redis.zadd(keys.retries_of("workers", stream), {waiting: due})
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
            (unread,) = await publish(any_redis, keys, OLD - 1)
            await trimmer.trim(RETENTION)
        retry, behind = events(logs, "group.lagging")
        assert (retry["holds"], retry["oldest"]) == ("retry", waiting.decode())
        assert 86_300 < retry["due_in"] <= 86_400
        assert "its handler asked for" in retry["cure"]
        assert (behind["holds"], behind["oldest"]) == ("unread", unread.decode())
        assert "start more workers" in behind["cure"]
        assert trimmer.backlog.lagging == 1

    async def test_a_group_that_lags_in_many_streams_is_told_of_in_one_line(
        self, any_redis: Redis, keys: Keys, trimmer: Trimmer
    ) -> None:
        types = [f"im.number_{number}_v1" for number in range(30)]
        for number, event_type in enumerate(types):
            await publish(any_redis, keys, OLD - number, event_type=event_type)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        (line,) = events(logs, "stream.unread")
        assert (line["stream"], line["streams"]) == (keys.stream(types[0]), 30)
        assert line["types"].split() == types[:10]
        await any_redis.sadd(keys.subscriptions, "workers|*")
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        (line,) = events(logs, "group.lagging")
        assert (line["stream"], line["streams"]) == (keys.stream(types[0]), 30)
        assert (trimmer.backlog.lagging, trimmer.backlog.unread) == (30, 0)
        for event_type in types:
            await read(any_redis, keys.stream(event_type), "workers", acknowledge=1)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        (line,) = events(logs, "group.caught_up")
        assert line["streams"] == 30

    async def test_events_that_wait_while_no_worker_is_there_are_told_of_long_before_they_lag(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await any_redis.sadd(keys.subscriptions, "workers|*")
        await publish(any_redis, keys, YOUNG - 10)
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        assert not logs, "a worker may be starting anew"
        await publish(any_redis, keys, YOUNG + 10, event_type="im.another_v1")
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
            await trimmer.trim(RETENTION)
        (line,) = events(logs, "workers.missing")
        assert (line["group"], line["streams"]) == ("workers", 1)
        assert YOUNG < line["oldest_age"] < YOUNG + 60
        assert trimmer.backlog.without_workers == 1
        await any_redis.zadd(keys.workers("workers"), {"{}": 1})
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
        assert [line["event"] for line in logs] == ["workers.found"]
        assert trimmer.backlog.without_workers == 0

    async def test_it_is_told_when_the_group_has_caught_up_and_told_anew_when_it_lags_anew(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        (first,) = await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "workers")
        with capture_logs() as logs:
            await trimmer.trim(RETENTION)
            await any_redis.xack(stream, "workers", first)
            await trimmer.trim(RETENTION)
            assert trimmer.backlog.lagging == 0
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
        assert trimmer.backlog.lagging == 1
        await any_redis.xgroup_destroy(stream, "audit")
        await trimmer.trim(RETENTION)
        assert trimmer.backlog.lagging == 0

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
    async def test_exactly_what_is_old_and_settled_by_all_goes(
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
        last_given: set[bytes] = set()
        for number, (count, acknowledged) in enumerate(groups):
            given_ids = await read(redis, stream, f"g{number}", count)
            done = {given_ids[index] for index in acknowledged if index < len(given_ids)}
            if done:
                await redis.xack(stream, f"g{number}", *done)
            unsettled |= set(ids) - done
            last_given |= set(given_ids[-1:])
        at_least = set(old(ids)) - unsettled - last_given
        await Trimmer(redis, keys, RETENTION).trim(RETENTION)
        at_most = set(old(ids)) - unsettled
        remaining = await left(redis, stream)
        known = [group["lag"] is not None for group in await redis.xinfo_groups(stream)]
        await redis.aclose()
        assert at_least <= set(ids) - set(remaining) <= at_most
        assert all(known)


class TestFewRights:
    async def test_a_user_who_may_do_no_more_than_trim_trims(
        self, real_redis: Redis, real_url: str, keys: Keys, stream: str
    ) -> None:
        """What else it might tell is left out."""
        rights = "-@all +eval +evalsha +time +smembers +xinfo|groups +xpending +xrange +xtrim +xlen"
        await real_redis.execute_command(
            "ACL", "SETUSER", "few", "reset", "on", ">pw", "~*", *rights.split()
        )
        await publish(real_redis, keys, *[OLD] * 3, YOUNG + 10)
        await read(real_redis, stream, "workers", 3, acknowledge=2)
        few = async_client(real_url.replace("//", "//few:pw@", 1))
        try:
            with capture_logs() as logs:
                await Trimmer(few, keys, RETENTION).trim(RETENTION)
        finally:
            await few.aclose()
            await real_redis.execute_command("ACL", "DELUSER", "few")
        assert await real_redis.xlen(stream) == 2
        assert [line["event"] for line in logs if line["log_level"] != "debug"] == ["group.lagging"]


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
        assert trimmer.backlog.lagging == 0
        relieved = len(rounds)
        await eventually(lambda: len(rounds) > relieved + 3)
        assert rounds.count(0.0) == 1
        running.cancel()
        await asyncio.wait({running})

    async def test_a_set_spoilt_by_hand_is_named_and_stops_no_more_than_it_must(
        self, any_redis: Redis, keys: Keys, stream: str, trimmer: Trimmer
    ) -> None:
        await publish(any_redis, keys, OLD)
        await read(any_redis, stream, "a", acknowledge=1)
        await read(any_redis, stream, "b", acknowledge=1)
        await any_redis.set(keys.replays("a"), "x")
        await any_redis.sadd(keys.replays("b"), IM)
        await any_redis.xadd(keys.replay("b", IM), EVENT)
        await read(any_redis, keys.replay("b", IM), "b", acknowledge=1)
        with capture_logs() as logs:
            await trimmer._attempt(RETENTION)
            await trimmer._attempt(RETENTION)
        assert await any_redis.xlen(stream) == await any_redis.xlen(keys.replay("b", IM)) == 0
        (line,) = events(logs, "trim.failed")
        assert keys.replays("a") in line["error"]
        assert line["cure"].startswith("delete the key")

    async def test_it_survives_a_redis_that_is_gone_and_says_so_once(
        self,
        real_redis: Redis,
        keys: Keys,
        monkeypatch: pytest.MonkeyPatch,
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
