"""The scripts, on fakeredis, Redis and Valkey."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis.asyncio import Redis

from flybridge.bridge.store.lifetimes import MARKER_TTL
from flybridge.bridge.store.scripts import load
from flybridge.bridge.store.streams import Keys

LEASE = load("lease").text
KEEP_LETTER = load("keep_letter").text
PUBLISH = load("publish").text

DURATION = 15_000


async def hold(redis: Redis, keys: Keys, identity: str, duration: int = DURATION) -> list[Any]:
    return await redis.eval(LEASE, 1, keys.lease, "hold", identity, duration, 0)


async def release(redis: Redis, keys: Keys, identity: str, term: int) -> list[Any]:
    return await redis.eval(LEASE, 1, keys.lease, "release", identity, DURATION, term)


async def publish(
    redis: Redis, keys: Keys, event_id: str, *, term: int, name: str = "im.x", cap: int = 512
) -> list[Any]:
    streams = (keys.stream(name), keys.stream("other"))
    return await redis.eval(
        PUBLISH, 5, keys.lease, keys.published(event_id), keys.types, *streams,
        term, name, cap, MARKER_TTL, "event_id", event_id, "envelope", b"\x00{}",
    )  # fmt: skip


async def run_out(redis: Redis, keys: Keys) -> None:
    """Let the lease look as if it had been renewed long ago."""
    await redis.hset(keys.lease, "renewed_at", int(time.time() * 1000) - DURATION - 1)


class TestLease:
    async def test_the_first_to_ask_gets_it_and_a_term_that_is_the_time(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        term, holder, left = await hold(any_redis, keys, "a")
        assert abs(term - time.time() * 1000) < 5_000
        assert (holder, left) == (b"a", DURATION)
        record = await any_redis.hgetall(keys.lease)
        assert record[b"term"] == str(term).encode()
        others = {b"candidacy", b"renewed_at", b"lease_duration"}
        assert set(record) == {b"holder", b"term"} | others

    async def test_another_is_told_who_holds_it_and_for_how_long(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        await hold(any_redis, keys, "a")
        term, holder, left = await hold(any_redis, keys, "b")
        assert (term, holder) == (0, b"a")
        assert 0 < left <= DURATION

    async def test_a_renewal_keeps_the_term_so_a_lost_reply_does_no_harm(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        first = await hold(any_redis, keys, "a")
        assert await hold(any_redis, keys, "a") == first

    async def test_a_holder_that_comes_too_late_gets_a_new_term(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        term, _, _ = await hold(any_redis, keys, "a")
        await run_out(any_redis, keys)
        assert (await hold(any_redis, keys, "a"))[0] > term

    async def test_terms_grow_even_when_the_clock_of_redis_does_not(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        ahead = int(time.time() * 1000) + 3_600_000
        await any_redis.hset(keys.lease, mapping={"holder": "a", "term": ahead})
        assert (await hold(any_redis, keys, "b"))[0] == ahead + 1

    async def test_a_lease_runs_anew_when_the_clock_of_redis_went_back(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        term, _, _ = await hold(any_redis, keys, "a")
        await any_redis.hset(keys.lease, "renewed_at", int(time.time() * 1000) + 3_600_000)
        assert await hold(any_redis, keys, "b") == [0, b"a", DURATION]
        renewed_at = int(await any_redis.hget(keys.lease, "renewed_at"))
        assert abs(renewed_at - time.time() * 1000) < 5_000
        assert await hold(any_redis, keys, "a") == [term, b"a", DURATION]

    async def test_a_release_leaves_the_term_and_lets_the_next_one_in(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        term, _, _ = await hold(any_redis, keys, "a")
        assert await release(any_redis, keys, "a", term) == [0, b"", 0]
        assert await any_redis.hget(keys.lease, "term") == str(term).encode()
        assert (await hold(any_redis, keys, "b"))[0] > term

    @pytest.mark.parametrize(("identity", "off"), [("b", 0), ("a", 1)])
    async def test_only_the_holder_of_this_term_releases(
        self, any_redis: Redis, keys: Keys, identity: str, off: int
    ) -> None:
        term, _, _ = await hold(any_redis, keys, "a")
        await release(any_redis, keys, identity, term + off)
        assert await any_redis.hget(keys.lease, "holder") == b"a"

    async def test_a_release_of_term_0_also_undoes_a_grant_that_was_never_heard_of(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        await hold(any_redis, keys, "a")
        await release(any_redis, keys, "a", 0)
        assert await any_redis.hget(keys.lease, "holder") == b""


class TestPublish:
    @pytest.fixture(autouse=True)
    async def _led(self, any_redis: Redis, keys: Keys) -> None:
        self.term = (await hold(any_redis, keys, "a"))[0]

    async def test_an_event_becomes_an_entry_of_its_stream_with_all_fields_untouched(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        verdict, entry_id = await publish(any_redis, keys, "e1", term=self.term)
        assert verdict == b"published"
        fields = {b"event_id": b"e1", b"envelope": b"\x00{}"}
        assert await any_redis.xrange(keys.stream("im.x")) == [(entry_id, fields)]
        assert await any_redis.smembers(keys.types) == {b"im.x"}

    async def test_a_second_time_it_says_where_the_first_went(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        _, entry_id = await publish(any_redis, keys, "e1", term=self.term)
        again = await publish(any_redis, keys, "e1", term=self.term)
        assert again == [b"duplicate", entry_id]
        assert await any_redis.xlen(keys.stream("im.x")) == 1

    async def test_a_second_time_is_a_write_too_so_that_its_durability_can_be_waited_for(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        await publish(any_redis, keys, "e1", term=self.term)
        await any_redis.expire(keys.published("e1"), 60)
        await publish(any_redis, keys, "e1", term=self.term)
        assert await any_redis.ttl(keys.published("e1")) > MARKER_TTL - 5

    async def test_the_marker_lasts_a_day(self, any_redis: Redis, keys: Keys) -> None:
        await publish(any_redis, keys, "e1", term=self.term)
        assert MARKER_TTL - 5 < await any_redis.ttl(keys.published("e1")) <= MARKER_TTL

    @pytest.mark.parametrize("off", [-1, 1])
    async def test_another_term_is_fenced_and_leaves_nothing_behind(
        self, any_redis: Redis, keys: Keys, off: int
    ) -> None:
        refused = await publish(any_redis, keys, "e1", term=self.term + off)
        assert refused == [b"fenced", str(self.term).encode()]
        assert await any_redis.keys("*") == [keys.lease.encode()]

    async def test_keys_that_somebody_has_spoilt_keep_no_event_out(
        self, real_redis: Redis, keys: Keys
    ) -> None:
        term = (await hold(real_redis, keys, "a"))[0]
        for key in (keys.types, keys.stream("im.x"), keys.published("e1")):
            await real_redis.rpush(key, "by hand")
        verdict, entry_id = await publish(real_redis, keys, "e1", term=term)
        assert verdict == b"published"
        assert [each for each, _ in await real_redis.xrange(keys.stream("other"))] == [entry_id]
        assert await publish(real_redis, keys, "e1", term=term) == [b"duplicate", entry_id]

    async def test_a_redis_that_lost_the_lease_accepts_nobody(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        await any_redis.delete(keys.lease)
        assert await publish(any_redis, keys, "e1", term=self.term) == [b"fenced", b""]

    async def test_a_released_lease_lets_the_last_entries_of_its_term_in(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        await release(any_redis, keys, "a", self.term)
        assert (await publish(any_redis, keys, "e1", term=self.term))[0] == b"published"

    async def test_above_the_cap_new_types_share_the_other_stream(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        for number in range(4):
            await publish(any_redis, keys, f"e{number}", term=self.term, name=f"t{number}", cap=2)
        await publish(any_redis, keys, "e9", term=self.term, name="t0", cap=2)
        assert await any_redis.xlen(keys.stream("t0")) == 2
        assert await any_redis.xlen(keys.stream("other")) == 2
        assert await any_redis.smembers(keys.types) == {b"t0", b"t1", b"other"}


class TestFullRedis:
    """Only real servers have a memory limit."""

    @pytest.fixture(autouse=True)
    async def _full(self, real_redis: Redis, keys: Keys) -> Any:
        self.term = (await hold(real_redis, keys, "a"))[0]
        await real_redis.config_set("maxmemory", 1)
        yield
        await real_redis.config_set("maxmemory", 0)

    async def test_the_leader_keeps_its_lease(self, real_redis: Redis, keys: Keys) -> None:
        assert (await hold(real_redis, keys, "a"))[0] == self.term

    async def test_a_publish_is_refused_whole(self, real_redis: Redis, keys: Keys) -> None:
        with pytest.raises(Exception, match="maxmemory"):
            await publish(real_redis, keys, "e1", term=self.term)
        assert await real_redis.keys("*") == [keys.lease.encode()]


class TestKeepLetter:
    async def keep(self, redis: Redis, keys: Keys, letter: str, most: int = 2) -> list[Any]:
        return await redis.eval(
            KEEP_LETTER, 2, keys.dead("bridge"), keys.buried(letter), most, 60,
            "reason", "decode", "envelope", b"\x00\xff",
        )  # fmt: skip

    async def test_a_call_that_is_repeated_is_answered_as_before(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        verdict, entry_id = await self.keep(any_redis, keys, "a")
        assert verdict == b"kept"
        assert await self.keep(any_redis, keys, "a") == [b"duplicate", entry_id]
        ((there, fields),) = await any_redis.xrange(keys.dead("bridge"))
        assert (there, fields) == (entry_id, {b"reason": b"decode", b"envelope": b"\x00\xff"})
        assert 0 < await any_redis.ttl(keys.buried("a")) <= 60

    async def test_without_room_nothing_is_added_and_nothing_dropped(
        self, any_redis: Redis, keys: Keys
    ) -> None:
        for letter in "ab":
            await self.keep(any_redis, keys, letter)
        assert await self.keep(any_redis, keys, "c") == [b"letters_full", b"2"]
        assert (await self.keep(any_redis, keys, "a"))[0] == b"duplicate"
        assert await any_redis.xlen(keys.dead("bridge")) == 2
        assert (await self.keep(any_redis, keys, "c", most=3))[0] == b"kept"
