from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
import redis_lock
from redis import Redis

from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.claim.bulk import PAGE, Bulk
from flybridge.workers.claim.claims import Pending, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Failure, Outcome

KEYS = Keys("app")
GROUP = "workers"
STREAM = KEYS.stream("test.row_v1")

LEASE = 30_000
TTL = 600


@pytest.fixture
def bulk(redis: Redis) -> Bulk:
    redis.xgroup_create(STREAM, GROUP, mkstream=True)
    return Bulk(redis, KEYS, GROUP, TTL)


def lock_of(event_id: str) -> str:
    return "lock:" + KEYS.lock_name(GROUP, event_id)


def delivered(redis: Redis, count: int) -> list[str]:
    """Entry ids that are pending."""
    for _ in range(count):
        redis.xadd(STREAM, {"any": "thing"})
    ((_, entries),) = redis.xreadgroup(GROUP, "consumer", {STREAM: ">"}, count=count)
    return [entry_id.decode() for entry_id, _ in entries]


def settlements(redis: Redis, events: list[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    entry_ids = delivered(redis, len(events))
    return [
        (STREAM, event_id, token, entry_id)
        for (event_id, token), entry_id in zip(events, entry_ids, strict=True)
    ]


def test_what_nobody_has_met_is_claimed_with_lock_and_state_as_by_claim_lua(
    bulk: Bulk, redis: Redis
) -> None:
    assert bulk.claim([("ev-1", "me:1"), ("ev-2", "me:2")], LEASE) == [True, True]
    state = KEYS.state(GROUP, "ev-1")
    assert redis.hgetall(state) == {b"state": b"running", b"token": b"me:1", b"attempts": b"1"}
    assert redis.ttl(state) == TTL
    assert redis.get(lock_of("ev-1")) == b"me:1"
    assert 0 < redis.pttl(lock_of("ev-1")) <= LEASE


def test_what_is_known_or_locked_or_spoilt_is_left_untouched(bulk: Bulk, redis: Redis) -> None:
    redis.hset(KEYS.state(GROUP, "known"), "state", "done")
    redis.set(lock_of("locked"), "somebody")
    redis.set(KEYS.state(GROUP, "spoilt"), "no hash")
    events = [(name, "me") for name in ("known", "locked", "spoilt", "fresh", "fresh")]
    assert bulk.claim(events, LEASE) == [False, False, False, True, False]
    assert redis.get(lock_of("locked")) == b"somebody"
    assert not redis.exists(lock_of("known"), KEYS.state(GROUP, "locked"))


def test_success_is_recorded_and_the_entry_acknowledged(bulk: Bulk, redis: Redis) -> None:
    events = [("ev-1", "me:1"), ("ev-2", "me:2")]
    bulk.claim(events, LEASE)
    done = settlements(redis, events)
    retries = KEYS.retries_of(GROUP, STREAM)
    redis.zadd(retries, {done[0][3]: 1, "other": 2})

    assert bulk.settle(done) == [True, True]
    state = KEYS.state(GROUP, "ev-2")
    assert redis.hmget(state, "state", "token") == [b"done", b"me:2"]
    assert redis.ttl(state) == TTL
    assert not redis.exists(lock_of("ev-1"), lock_of("ev-2"))
    assert 0 < redis.pttl("lock-signal:" + KEYS.lock_name(GROUP, "ev-1")) <= 1000
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
    assert redis.zrange(retries, 0, -1) == [b"other"]


def test_who_does_not_have_the_lock_any_more_records_nothing(bulk: Bulk, redis: Redis) -> None:
    bulk.claim([("ev-1", "other"), ("ev-2", "me"), ("ev-3", "me")], LEASE)
    done = settlements(redis, [("ev-1", "me"), ("ev-2", "me"), ("ev-3", "me")])
    redis.set(lock_of("ev-2"), "a user of python-redis-lock")
    redis.delete(lock_of("ev-3"))
    assert bulk.settle(done) == [False, False, False]
    assert redis.mget(lock_of("ev-1"), lock_of("ev-2"), lock_of("ev-3")) == [
        b"other", b"a user of python-redis-lock", None]  # fmt: skip
    assert redis.hget(KEYS.state(GROUP, "ev-3"), "state") == b"running"
    assert redis.xpending(STREAM, GROUP)["pending"] == 3


def test_who_waits_for_the_lock_with_python_redis_lock_is_woken(bulk: Bulk, redis: Redis) -> None:
    bulk.claim([("ev-1", "me")], LEASE)
    got = threading.Event()
    lock = redis_lock.Lock(redis, KEYS.lock_name(GROUP, "ev-1"), expire=30, id="waiter")

    def wait() -> None:
        if lock.acquire(timeout=20):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    while not redis.info("clients")["blocked_clients"]:
        assert waiter.is_alive()
    bulk.settle(settlements(redis, [("ev-1", "me")]))
    assert got.wait(20)
    waiter.join()


def test_a_spoilt_key_stops_one_event_and_no_other(bulk: Bulk, redis: Redis) -> None:
    bulk.claim([("ev-1", "me"), ("ev-2", "me")], LEASE)
    done = settlements(redis, [("ev-1", "me"), ("ev-2", "me")])
    redis.delete(KEYS.state(GROUP, "ev-1"))
    redis.set(KEYS.state(GROUP, "ev-1"), "no hash")
    assert bulk.settle(done) == [False, True]


def test_a_spoilt_signal_is_replaced(bulk: Bulk, redis: Redis) -> None:
    events = [(f"ev-{number}", "me") for number in range(3)]
    bulk.claim(events, LEASE)
    signal = "lock-signal:" + KEYS.lock_name(GROUP, "ev-1")
    redis.set(signal, "no list")
    assert bulk.settle(settlements(redis, events)) == [True] * 3
    assert redis.llen(signal) == 1
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
    assert not redis.exists(*(lock_of(event_id) for event_id, _ in events))


def test_a_mark_whose_state_was_deleted_by_hand_is_not_kept_for_ever(
    bulk: Bulk, redis: Redis
) -> None:
    bulk.claim([("ev-1", "me")], LEASE)
    redis.delete(KEYS.state(GROUP, "ev-1"))
    assert bulk.settle(settlements(redis, [("ev-1", "me")])) == [True]
    assert redis.ttl(KEYS.state(GROUP, "ev-1")) == TTL


def test_many_events_and_streams_are_answered_in_the_order_asked(bulk: Bulk, redis: Redis) -> None:
    other = KEYS.stream("test.other_v1")
    redis.xgroup_create(other, GROUP, mkstream=True)
    names = [f"ev-{number}" for number in range(PAGE + 5)]
    assert bulk.claim([(name, "me") for name in names[::2]], LEASE) == [True] * 103
    told = [
        (STREAM if number % 3 else other, name, "me", "1-1") for number, name in enumerate(names)
    ]
    assert bulk.settle(told) == [number % 2 == 0 for number in range(PAGE + 5)]


def test_nothing_to_do_asks_nothing(bulk: Bulk) -> None:
    assert bulk.claim([], LEASE) == []
    assert bulk.settle([]) == []


class World:
    """Two workers of an app, that take the bulk path or never do, and what Redis has of them."""

    def __init__(self, redis: Redis, app: str, *, bulk: bool) -> None:
        self.redis, self.keys = redis, Keys(app)
        self.stream = self.keys.stream("test.row_v1")
        redis.xgroup_create(self.stream, GROUP, mkstream=True)
        self.guards = [Guard(redis, self.keys, GROUP, 30, boot) for boot in ("w1", "w2")]
        self.items: list[Pending] = []
        self.runs: list[Run] = []
        if not bulk:
            for guard in self.guards:
                guard._bulk = SimpleNamespace(claim=_never, settle=_never)  # type: ignore[assignment]

    def play(self, random: Random) -> object:
        """Do something at random; what came of it."""
        acts = (self.publish, self.claim, self.claim, self.settle, self.settle, self.expire)
        return random.choice(acts)(random) if self.items else self.publish(random)

    def publish(self, random: Random) -> object:
        event_id = f"e{random.randrange(12)}"
        entry = Entry(event_id, "test.row_v1", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
        fields = entry.fields()
        told = dict(zip(fields[::2], fields[1::2], strict=True))
        entry_id = self.redis.xadd(self.stream, told, id=f"{len(self.items) + 1}-0")
        self.redis.xreadgroup(GROUP, "consumer", {self.stream: ">"})
        self.items.append(Pending(self.stream, entry_id.decode(), entry))
        return entry_id

    def claim(self, random: Random) -> object:
        guard, items = random.choice(self.guards), random.choices(self.items, k=4)
        answers = guard.claim(items)
        if random.random() < 0.3:  # nobody heard them
            tokens = [each.token if isinstance(each, Run) else "nobody's" for each in answers]
            guard._remember(items, tokens)
            answers = guard.claim(items)
        self.runs += [each for each in answers if isinstance(each, Run)]
        return [(type(each).__name__, _told(each)) for each in answers]

    def settle(self, random: Random) -> object:
        outcomes = [Outcome(("act",)), Outcome(retry_after=0.0), Outcome(retry_after=60.0),
                    Outcome(("act",), retry_after=0.0, crashed=True),
                    Outcome(failed=(Failure("act", "rejected", "no"),))]  # fmt: skip
        weights = (6, 1, 1, 1, 1)
        settlements = [
            Settlement(run, replace(outcome, returned=random.random() < 0.1))
            for run in random.sample(self.runs, min(4, len(self.runs)))
            for outcome in random.choices(outcomes, weights)
        ]
        return random.choice(self.guards).settle(settlements)

    def expire(self, random: Random) -> object:
        return self.redis.delete("lock:" + self.keys.lock_name(GROUP, f"e{random.randrange(12)}"))

    def _kept(self, event_id: str) -> int:
        """Hours its state is kept; a first attempt may have those of a done mark already."""
        state = self.keys.state(GROUP, event_id)
        first = self.redis.hmget(state, "state", "attempts") == [b"running", b"1"]
        return 0 if first else round(self.redis.ttl(state) / 3600)

    def seen(self) -> object:
        """What Redis has, but for instants."""
        events = [f"e{number}" for number in range(12)]
        states = [self.redis.hgetall(self.keys.state(GROUP, each)) for each in events]
        pending = self.redis.xpending_range(self.stream, GROUP, "-", "+", 1000)
        retries = self.redis.zrange(self.keys.retries_of(GROUP, self.stream), 0, -1)
        return (
            [_lasting(each) for each in states],
            [self._kept(each) for each in events],
            [self.redis.get("lock:" + self.keys.lock_name(GROUP, each)) for each in events],
            [each["message_id"] for each in pending],
            sorted(retries),  # they are in the order of their instants
            self.redis.xlen(self.keys.dead(GROUP)),
        )


def _lasting(state: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """What counts: the bulk path leaves the number of the attempt in what is done."""
    ignored = {b"due", b"attempts"} if state.get(b"state") == b"done" else {b"due"}
    return {name: value for name, value in state.items() if name not in ignored}


def _never(events: Sequence[object], *_: object) -> list[bool]:
    return [False] * len(events)


def _told(claim: object) -> object:
    if isinstance(claim, Run):
        return claim.pending, claim.token, claim.attempt, claim.marks, claim.crashes
    return None


@pytest.mark.parametrize("seed", range(12))
def test_the_bulk_path_does_what_the_other_does(redis: Redis, seed: int) -> None:
    worlds = World(redis, "app", bulk=True), World(redis, "app-", bulk=False)
    choices = Random(seed), Random(seed)
    for _ in range(60):
        with_bulk, without = (
            world.play(random) for world, random in zip(worlds, choices, strict=True)
        )
        assert _plain(with_bulk) == _plain(without)
        assert worlds[0].seen() == worlds[1].seen()


def _plain(answer: object) -> str:
    return str(answer).replace("{app-}", "{app}")
