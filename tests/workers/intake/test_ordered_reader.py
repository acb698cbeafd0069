"""Lines: the events of one key, one at a time and in the order of their stream, whoever dies."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.scripts import load, run_all
from flybridge.bridge.store.streams import OTHER, Entry, Keys
from flybridge.handlers.registry import Registry
from flybridge.workers.claim.claims import Busy, Duplicate, Pending, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.intake import ordered_reader
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.pending_list import PendingList
from flybridge.workers.intake.reader import StreamReader
from flybridge.workers.operate.groups import Groups
from flybridge.workers.operate.replay import Replayer
from flybridge.workers.operate.stored import scan
from flybridge.workers.routes.ordering import Ordering
from tests.workers.follower import missing

IM = "im.message.receive_v1"
BY_CHAT = "body.message.chat_id"
LEASE = 30.0

DONE = Outcome(finished=("H",))
RETRY = Outcome(retry_after=0.0, error="E: again")
DEAD = Outcome(failed=(Failure("H", "rejected", "no"),))


@pytest.fixture
def server(either_server: EmbeddedRedis) -> EmbeddedRedis:
    return either_server


def registry(ordered_by: str | None = BY_CHAT, event_type: str = IM) -> Registry:
    made = Registry()
    made.register(lambda event, context: None, event_type, name="H", ordered_by=ordered_by)
    return made


ORDER = Ordering(registry())


@dataclass
class Streams:
    """Publishes as the bridge does; an event is named `<chat>-<number>`."""

    redis: Redis
    keys: Keys
    published: list[str] = field(default_factory=list)

    def push(self, *chats: Any, stream: str = "", event_type: str = IM) -> list[str]:
        return [self._push(chat, stream or self.keys.stream(event_type), event_type)
                for chat in chats]  # fmt: skip

    def _push(self, chat: Any, stream: str, event_type: str) -> str:
        event_id = f"{chat}-{len(self.published)}"
        self.published.append(event_id)
        envelope = json.dumps({"event": {"message": {"chat_id": chat}}}).encode()
        return self.add(event_id, envelope, stream, event_type)

    def add(self, event_id: str, envelope: bytes, stream: str = "", event_type: str = IM) -> str:
        entry = Entry(event_id, event_type, "cli", "tk", "2.0", 1, 2, 3, "", "", envelope)
        fields = entry.fields()
        named: Any = dict(zip(fields[::2], fields[1::2], strict=True))
        self.redis.sadd(self.keys.types, event_type)
        return self.redis.xadd(stream or self.keys.stream(event_type), named).decode()

    def of_chat(self, chat: Any) -> list[str]:
        return [each for each in self.published if each.startswith(f"{chat}-")]


class Worker:
    """Reader and guard of one worker, and what it holds."""

    def __init__(self, redis: Redis, keys: Keys, name: str, order: Ordering = ORDER) -> None:
        self.redis, self.keys, self.name = redis, keys, name
        consumer = Consumer(redis, keys, "workers", name, order)
        self.reader = StreamReader(consumer, LEASE)
        self.stalls = consumer.stalls
        self.pending = PendingList(consumer, LEASE)
        self.guard = Guard(redis, keys, "workers", LEASE, name)
        self.held: list[Run] = []
        self.follow()

    def follow(self) -> None:
        streams = [self.keys.stream(each) for each in (IM, OTHER)]
        self.reader.follow([*streams, self.keys.replay("workers", IM)])

    def read(self, room: int = 100) -> list[str]:
        return self.take(self.reader.read_ordered(room))

    def due(self, room: int = 100) -> list[str]:
        return self.take(self.pending.due(room))

    def own(self) -> list[str]:
        self.pending.doubt()
        return self.take(self.pending.own(100))

    def take_over(self, room: int = 100) -> list[str]:
        return self.take(self.pending.take_over(room))

    def take(self, items: list[Pending]) -> list[str]:
        claims = self.guard.claim(items) if items else []
        runs = [each for each in claims if isinstance(each, Run)]
        self.held += runs
        if old := [each.pending for each in claims if isinstance(each, Duplicate)]:
            self.pending.acknowledge(old)
        for claim in claims:
            if isinstance(claim, Busy):
                self.pending.postpone(claim.pending, claim.left)
        return [event_of(each) for each in runs]

    def end(self, outcome: Outcome = DONE) -> str:
        """The oldest that it holds has ended so."""
        run = self.held.pop(0)
        assert self.guard.settle([Settlement(run, outcome)]) == [True]
        return event_of(run)

    def die(self) -> None:
        """Whatever it holds is soon idle, and its locks have ended."""
        self.held = []
        for stream in self.reader.streams:
            found: Any = self.redis.xpending_range(
                stream, "workers", "-", "+", 10_000, consumername=self.name
            )
            ids = [each["message_id"] for each in found]
            if ids:
                self.redis.xclaim(stream, "workers", self.name, 0, ids, idle=3_600_000, justid=True)
        for lock in self.redis.scan_iter("lock:*"):
            if (self.redis.get(lock) or b"").startswith(self.name.encode() + b":"):
                self.redis.delete(lock)


def abandoned(redis: Redis, stream: str, consumer: str) -> None:
    """Make it look as if this consumer had not renewed for an hour what it has."""
    found: Any = redis.xpending_range(stream, "workers", "-", "+", 10_000, consumername=consumer)
    if ids := [each["message_id"] for each in found]:
        redis.xclaim(stream, "workers", consumer, 0, ids, idle=3_600_000, justid=True)


def event_of(run: Run) -> str:
    return run.pending.entry.event_id


@pytest.fixture
def streams(redis: Redis, keys: Keys) -> Streams:
    return Streams(redis, keys)


@pytest.fixture
def a(redis: Redis, keys: Keys) -> Worker:
    return Worker(redis, keys, "a")


@pytest.fixture
def b(redis: Redis, keys: Keys) -> Worker:
    return Worker(redis, keys, "b")


def lines_of(redis: Redis, keys: Keys) -> list[bytes]:
    return list(redis.scan_iter(keys.order("workers") + ":*"))


def test_of_one_key_only_the_first_event_runs_of_others_too(a, streams):
    streams.push("x", "x", "y", "x", "y")
    assert a.read() == ["x-0", "y-2"]
    assert a.read() == []
    a.end()
    assert a.due() == ["x-1"]


def test_the_order_holds_across_workers(a, b, streams):
    streams.push("x", "x", "x")
    first = a.reader.read_ordered(1)
    assert b.read() == [], "a has not claimed what it has read, yet nobody comes before it"
    assert a.take(first) == ["x-0"]
    a.end()
    assert b.due() == ["x-1"]
    assert a.due() == []
    b.end()
    assert a.due() == ["x-2"]


def test_a_stream_that_was_left_gives_nothing_out_of_order_after_a_lost_reply(a, b, streams):
    streams.push("x", "x")
    assert a.read() == ["x-0"]
    a.pending.doubt()
    a.reader.follow([])
    assert a.pending.own(100) == []
    a.follow()
    a.die()
    assert b.take_over() == ["x-0"]


def test_a_stream_that_is_left_during_a_look_for_retries_keeps_its_order(a, streams, monkeypatch):
    streams.push("x", "x")
    a.read()
    a.end(RETRY)

    def left_meanwhile(redis: Redis, calls: Any) -> Any:
        answers = run_all(redis, calls)
        a.reader.follow([])
        return answers

    monkeypatch.setattr("flybridge.workers.intake.pending_list.run_all", left_meanwhile)
    (item,) = a.pending.due(100)
    assert item.line


def test_who_settles_makes_the_next_due_at_once(a, streams, redis, keys):
    streams.push("x", "x")
    a.read()
    assert redis.zcard(keys.retries_of("workers", keys.stream(IM))) == 0
    a.end()
    assert redis.zcard(keys.retries_of("workers", keys.stream(IM))) == 1


def test_a_retry_blocks_its_key_and_no_other(a, streams):
    streams.push("x", "x", "y")
    a.read()
    a.end(Outcome(retry_after=60.0, error="later"))
    assert a.due() == []
    a.end()
    assert a.due() == []
    streams.push("x", "y")
    assert a.read() == ["y-4"]


def test_a_dead_letter_lets_the_next_run(a, streams):
    streams.push("x", "x")
    a.read()
    a.end(DEAD)
    assert a.due() == ["x-1"]


def test_what_was_given_back_stays_the_first(a, b, streams):
    streams.push("x", "x")
    a.read()
    run = a.held.pop()
    a.guard.settle([Settlement(run, Outcome(retry_after=0.0, returned=True))])
    assert b.due() == ["x-0"]
    assert b.held[0].attempt == 1


@pytest.mark.parametrize(
    "envelope",
    [b"{}", b"not json", b'{"event": 1}', b'{"event": {"message": {"chat_id": ""}}}',
     b'{"event": {"message": {"chat_id": null}}}', b'{"event": {"message": {"chat_id": [1]}}}',
     b'{"event": {"message": {"chat_id": 1.5}}}', b'{"event": {"message": {"chat_id": true}}}',
     b"[" * 5000],
)  # fmt: skip
def test_events_without_a_key_wait_for_nobody(a, streams, redis, keys, envelope):
    for number in range(3):
        streams.add(f"e{number}", envelope)
    assert a.read() == ["e0", "e1", "e2"]
    assert lines_of(redis, keys) == []


def test_an_event_without_its_key_is_told_of_once_a_type(redis, keys, streams):
    a = Worker(redis, keys, "a", Ordering(registry()))
    with capture_logs() as logs:
        streams.add("e1", b"{}")
        streams.add("e2", b"{}")
        streams.push("x")
        a.read()
    (line,) = [line for line in logs if line["event"] == "key.missing"]
    assert (line["option"], line["event_type"]) == ("ordered_by", IM)


@pytest.mark.parametrize("damaged", [rb"order \ud83d", rb"\ude00", rb"\\ud83d \ud83d", b"\xe6\x9d"])
def test_a_damaged_character_beside_the_key_does_not_cost_the_order(a, streams, damaged):
    streams.push("x")
    streams.add("e", b'{"event": {"message": {"text": "%b", "chat_id": "x"}}}' % damaged)
    assert a.read() == ["x-0"]


def test_numbers_and_odd_texts_are_keys_too(a, streams):
    chats = [7, "7", 2**60, "群 #1", "x" * 5000]
    streams.push(*chats, *chats)
    assert a.read() == [f"{chat}-{n}" for n, chat in enumerate(chats) if n != 1], "7 is '7'"


def test_a_long_key_makes_no_long_name_and_no_line_stays_behind(a, streams, redis, keys):
    streams.push("x" * 5000)
    a.read()
    (line,) = lines_of(redis, keys)
    assert len(line) < 200
    assert redis.ttl(line) > 7 * 86_400
    a.end()
    assert lines_of(redis, keys) == []


def test_an_event_that_is_too_large_to_look_into_is_unordered(a, streams):
    padding = b" " * 1_048_577
    for number in range(3):
        streams.add(f"e{number}", b'{"event": {"message": {"chat_id": "x"}}}' + padding)
    streams.push("x", "x")
    with capture_logs() as logs:
        assert a.read() == ["e0", "e1", "e2", "x-0"], "beside each other, and beside its line"
    told = [each["bytes"] for each in logs if each["event"] == "event.unordered"]
    assert told == [1_048_577 + 40], "once"


def test_a_long_line_keeps_nobody_of_another_key_out(a, streams):
    streams.push(*["x"] * 300, "y")
    assert a.read(room=2) == ["x-0", "y-300"]


def test_no_more_is_given_than_there_is_room_for_and_the_rest_is_due(a, b, streams):
    streams.push(*["x"] * 10, *(f"k{n}" for n in range(30)))
    given = a.read(room=3)
    assert len(given) == 3
    others = b.due() + b.read()
    assert sorted(given + others) == sorted(["x-0", *streams.published[10:]])


def test_an_ordered_stream_is_not_read_far_ahead(a, streams, redis, monkeypatch):
    monkeypatch.setattr(ordered_reader, "READ_AHEAD", 50)
    streams.push(*["x"] * 200)
    a.read()
    pending = redis.xpending(a.keys.stream(IM), "workers")["pending"]
    assert 50 <= pending <= 50 + ordered_reader.PAGE
    began = time.monotonic()
    a.reader.listen(4)
    assert time.monotonic() - began < 1, "it looks again soon, whoever settles them"
    a.reader.follow([a.keys.stream(IM)])
    assert a.reader.listen(4) is False, "the bell would ring without end"


def test_keys_that_wait_for_their_retry_keep_no_other_out(a, streams, monkeypatch):
    monkeypatch.setattr(ordered_reader, "READ_AHEAD", 50)
    streams.push(*(f"k{number}" for number in range(60)))
    a.read()
    while a.held:
        a.end(Outcome(retry_after=3600.0))
    while a.read() or a.due():
        while a.held:
            a.end(Outcome(retry_after=3600.0))
    streams.push("x")
    assert a.read() == ["x-60"]


def test_retries_of_other_streams_do_not_lift_the_bound(a, streams, redis, keys, monkeypatch):
    monkeypatch.setattr(ordered_reader, "READ_AHEAD", 10)
    redis.zadd(keys.retries_of("workers", keys.stream(OTHER)), {f"{n}-1": n for n in range(100)})
    redis.zadd(keys.retries("workers"), {f"{n}-1": n for n in range(100)})
    streams.push(*["x"] * 200)
    for _ in range(20):
        a.read(5)
    assert redis.xpending(keys.stream(IM), "workers")["pending"] < 10 + ordered_reader.PAGE


def test_a_worker_that_died_is_replaced_and_the_order_holds(a, b, streams):
    streams.push("x", "x", "x")
    a.read()
    a.die()
    assert b.take_over() == ["x-0"]
    assert b.held[0].crashes == 1
    b.end()
    assert b.due() == ["x-1"]


def test_waiting_in_line_is_no_attempt_however_often_it_is_taken_over(a, b, streams, redis, keys):
    streams.push("x", "x")
    a.read()
    for _ in range(3):
        redis.xclaim(keys.stream(IM), "workers", "a", 0,
                     [each["message_id"] for each in redis.xpending_range(
                         keys.stream(IM), "workers", "-", "+", 10)][1:],
                     idle=3_600_000, justid=True)  # fmt: skip
        assert b.take_over() == []
    a.end()
    b.due()
    assert (b.held[0].attempt, b.held[0].crashes) == (1, 0)


def test_a_reply_that_was_lost_leaves_the_first_with_its_reader(a, b, streams):
    streams.push("x", "x")
    a.reader.read_ordered(10)
    assert a.own() == ["x-0"]


def test_a_worker_that_dies_between_settling_and_telling_costs_a_lease(a, b, streams, monkeypatch):
    streams.push("x", "x")
    a.read()

    def only_settles(redis, calls):
        return run_all(redis, [call for call in calls if call.script is not load("advance")])

    monkeypatch.setattr("flybridge.workers.claim.guard.run_all", only_settles)
    a.end()
    monkeypatch.undo()
    a.die()
    assert b.take_over() + b.due() == ["x-1"]


def test_what_is_settled_between_two_looks_is_not_missing(a, streams, redis, keys, monkeypatch):
    _, deleted = streams.push("x", "y")
    a.read()

    def meanwhile(redis: Redis, calls: Any) -> Any:
        answers = run_all(redis, calls)
        monkeypatch.undo()
        assert a.end() == "x-0"
        redis.xdel(keys.stream(IM), deleted)
        return answers

    monkeypatch.setattr("flybridge.workers.intake.pending_list.run_all", meanwhile)
    with capture_logs() as logs:
        assert a.own() == []
    assert missing(logs) == [deleted]


@pytest.mark.parametrize("how", ["acknowledged", "deleted", "both"])
def test_who_is_removed_by_hand_blocks_nobody(a, b, streams, redis, keys, how):
    first, *_ = streams.push("x", "x")
    a.reader.read_ordered(10)
    if how != "acknowledged":
        redis.xdel(keys.stream(IM), first)
    if how != "deleted":
        redis.xack(keys.stream(IM), "workers", first)
    streams.push("x")
    assert a.read() == []
    assert a.due() == ["x-1"]


def test_a_line_that_was_overwritten_by_hand_stops_its_own_key_only(a, streams, redis, keys):
    line = f"{keys.order('workers')}:{IM}:x"
    redis.set(line, "by hand")
    streams.push("x", "y")
    assert a.read() == ["y-1"]
    redis.delete(line)
    redis.zadd(
        keys.retries_of("workers", keys.stream(IM)),
        {redis.xrange(keys.stream(IM))[0][0]: 0},
    )
    assert a.due() == ["x-0"]


def test_a_duplicate_lets_the_next_run(a, streams):
    streams.add("same", b'{"event": {"message": {"chat_id": "x"}}}')
    streams.add("same", b'{"event": {"message": {"chat_id": "x"}}}')
    streams.push("x")
    a.read()
    a.end()
    assert a.due() == []
    assert a.due() == ["x-0"]


def test_an_entry_that_nobody_can_read_lets_the_next_run(a, streams, redis, keys):
    spoilt = {"event_type": IM, "envelope": b'{"event": {"message": {"chat_id": "x"}}}'}
    redis.xadd(keys.stream(IM), spoilt)
    streams.push("x")
    assert a.read() == []
    assert redis.xlen(keys.dead("workers")) == 1
    assert a.due() == ["x-0"]


def test_a_replayed_event_stands_at_the_end_of_its_line(a, streams, redis, keys):
    streams.push("x", "x", "x")
    a.read()
    a.end(DEAD)
    letters = list(scan(redis, keys.dead("workers"), "-", "+"))
    (answer,) = Replayer(redis, keys, "workers", "me").replay(letters, None)
    assert answer.moved
    assert a.read() == []
    for event_id in ("x-1", "x-2", "x-0"):
        assert a.due() == [event_id]
        a.end()


def test_who_has_begun_stays_first_though_earlier_entries_come_late(a, b, streams, redis, keys):
    """Those that were read before their type was ordered, or whose line was lost."""
    early, second, _ = streams.push("x", "x", "x")
    redis.xgroup_setid(keys.stream(IM), "workers", early)
    assert a.read() == ["x-1"]
    redis.xgroup_setid(keys.stream(IM), "workers", "0")
    redis.xclaim(keys.stream(IM), "workers", "b", 0, [second], justid=True)
    assert b.take(b.reader.read_ordered(1)) == []
    a.end()
    assert b.due() == ["x-0"]
    b.end()
    assert b.due() == ["x-2"]


def test_who_was_first_when_read_and_is_not_when_claimed_waits(a, b, streams, redis, keys):
    early, _ = streams.push("x", "x")
    redis.xgroup_setid(keys.stream(IM), "workers", early)
    read = a.reader.read_ordered(1)
    redis.xgroup_setid(keys.stream(IM), "workers", "0")
    assert b.read(1) == ["x-0"]
    assert a.take(read) == []
    b.end()
    assert a.due() == ["x-1"]


def test_what_was_read_before_the_option_was_set_joins_in_its_place(a, b, streams, redis, keys):
    streams.push("x", "x")
    redis.xreadgroup("workers", "old", {keys.stream(IM): ">"})
    streams.push("x")
    assert b.take(b.reader.read_ordered(10)) == ["x-2"]
    abandoned(redis, keys.stream(IM), "old")
    assert a.take_over() == []
    b.end()
    assert a.due() == ["x-0"]
    a.end()
    assert a.due() == ["x-1"]


def test_a_group_made_anew_starts_from_the_first_entry_again(a, streams, redis, keys):
    streams.push("x", "x")
    a.read()
    redis.xgroup_destroy(keys.stream(IM), "workers")
    a.reader.make_groups_again()
    a.held = []
    for lock in redis.scan_iter("lock:*"):
        redis.delete(lock)
    assert a.read() == ["x-0"]


def test_the_stream_of_unknown_types_is_ordered_for_the_known_ones(a, streams, keys):
    streams.push("x", "x", stream=keys.stream(OTHER))
    streams.push("x", "x", stream=keys.stream(OTHER), event_type="made.up_v1")
    assert a.read() == ["x-0", "x-2", "x-3"]


def test_a_group_that_is_forgotten_leaves_no_line(a, streams, redis, keys):
    streams.push("x", "x")
    a.read()
    assert lines_of(redis, keys)
    Groups(redis, keys, "me").forget("workers")
    assert lines_of(redis, keys) == []


def test_an_unordered_stream_is_read_as_ever(redis, keys, streams):
    worker = Worker(redis, keys, "c", Ordering(registry(None)))
    streams.push("x", "x")
    assert worker.reader.ordered == ()
    assert len(worker.take(worker.reader.read(10, 0.01))) == 2
    assert lines_of(redis, keys) == []


def test_the_doorbell_rings_for_new_entries(a, b, streams):
    streams.push("x")
    a.read()
    b.read()
    rung: list[float] = []

    def wait() -> None:
        assert a.reader.listen(10)
        rung.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    pushed = time.monotonic()
    streams.push("y")
    thread.join(5)
    assert [moment - pushed < 1 for moment in rung] == [True]
    b.read()
    assert a.read() == []
    began = time.monotonic()
    a.reader.listen(0.05)
    assert time.monotonic() - began > 0.04, "what another worker has read rings no more"


Action = tuple[str, str]

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "read", "read", "due", "due", "done", "done", "retry",
                         "dead", "die", "take_over", "lose_read", "lose_settle", "unclaimed"]),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=60,
)  # fmt: skip


class Watch:
    """Sees to it that events of one key run one at a time and in their order."""

    def __init__(self, streams: Streams, workers: dict[str, Worker]) -> None:
        self.streams, self.workers = streams, workers
        self.ended: set[str] = set()

    def act(self, action: str, name: str) -> None:
        worker = self.workers[name]
        match action:
            case "push":
                self.streams.push({"a": "x", "b": "y", "c": "x"}[name])
            case "read" | "due" | "take_over":
                getattr(worker, action)(3)
            case "die":
                worker.die()
            case "lose_read":
                worker.reader.read_ordered(3)
                worker.own()
            case "unclaimed":
                worker.reader.read_ordered(3)
                worker.die()
            case _ if worker.held:
                self.end(worker, action)
        self.check()

    def end(self, worker: Worker, action: str) -> None:
        outcome = {"retry": RETRY, "dead": DEAD}.get(action, DONE)
        run = worker.held.pop(0)
        twice = 1 + (action == "lose_settle")
        for _ in range(twice):
            assert worker.guard.settle([Settlement(run, outcome)]) == [True]
        if outcome is not RETRY:
            self.ended.add(event_of(run))

    def check(self) -> None:
        running = [event_of(run) for each in self.workers.values() for run in each.held]
        for chat in ("x", "y"):
            open_ = [each for each in self.streams.of_chat(chat) if each not in self.ended]
            assert [each for each in running if each in open_] in ([], open_[:1])

    def finish(self) -> None:
        """Everything ends, whatever happened before."""
        for _ in range(4 * len(self.streams.published) + 8):
            for worker in self.workers.values():
                for action in ("done", "read", "due", "take_over"):
                    self.act(action, worker.name)
        assert self.ended == set(self.streams.published)


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(actions=ACTIONS)
def test_whatever_happens_keys_keep_their_order(
    redis: Redis, keys: Keys, actions: list[Action]
) -> None:
    redis.flushall()
    streams = Streams(redis, keys)
    watch = Watch(streams, {name: Worker(redis, keys, name) for name in ("a", "b", "c")})
    for action, name in actions:
        watch.act(action, name)
    watch.finish()
    assert lines_of(redis, keys) == []


def test_a_busy_stream_starves_no_other_that_is_ordered(
    redis: Redis, keys: Keys, streams: Streams, a: Worker
) -> None:
    streams.push(*(f"c{number}" for number in range(9)))
    streams.push("quiet", stream=keys.stream(OTHER))
    found = [event_id for _ in a.reader.ordered for event_id in a.read(2)]
    assert "quiet-9" in found
