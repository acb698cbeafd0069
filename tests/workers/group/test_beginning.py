"""Where a group begins: what a new one is given of the streams that are there already."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError, NoPermissionError
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import Keys
from flybridge.workers.group import beginning as module
from flybridge.workers.group import counting
from flybridge.workers.group.beginning import Beginning, moment
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.reader import StreamReader
from flybridge.workers.operate.groups import Groups
from tests.workers.follower import CONTACT, IM, ids

EVERYTHING = frozenset({"*"})

Publish = Callable[..., str]


class Worker:
    """One that has just started, and says what its group is given."""

    def __init__(self, redis: Redis, keys: Keys, group: str, start: str = "auto") -> None:
        self.redis, self.keys = redis, keys
        consumer = Consumer(redis, keys, group, f"{group}-1")
        beginning = Beginning(redis, keys, group, start, moment(redis))
        self.reader = StreamReader(consumer, 30.0, beginning=beginning)

    def started(self, covered: frozenset[str] = EVERYTHING) -> Worker:
        self.reader.subscribe(covered)
        return self

    def given(self, *types: str) -> list[str]:
        self.reader.follow(self.keys.stream(each) for each in types or (IM, CONTACT))
        found = []
        while items := self.reader.read(100, 0.01):
            found += ids(items)
        return sorted(found)


@pytest.fixture
def start(redis: Redis, keys: Keys) -> Callable[..., Worker]:
    """`start("audit", "now")`: a worker of this group, up to its first read."""

    def start(group: str, start_from: str = "auto", covered: frozenset[str] = EVERYTHING) -> Worker:
        return Worker(redis, keys, group, start_from).started(covered)

    return start


def old_event(redis: Redis, keys: Keys, event_id: str, hours: float, event_type: str = IM) -> None:
    at = int((time.time() - hours * 3600) * 1000)
    fields: dict[Any, Any] = {"event_id": event_id, "event_type": event_type, "envelope": "{}"}
    redis.xadd(keys.stream(event_type), fields, id=f"{at}-0")
    redis.sadd(keys.types, event_type)


def told(logs: list[Any]) -> dict[str, Any]:
    (line,) = [each for each in logs if each["event"].startswith("group.")]
    return line


def test_the_first_group_is_given_what_waited_for_it_and_the_log_says_how_much(start, publish):
    publish("ev1", "ev2")
    publish("ev3", event_type=CONTACT)
    with capture_logs() as logs:
        worker = start("workers")
    line = told(logs)
    assert (line["event"], line["log_level"], line["old_events"]) == ("group.new", "warning", 3)
    assert "it is given 3 events from before its start" in line["hint"]
    assert "flybridge groups forget workers, and start it with --from now" in line["hint"]
    assert worker.given() == ["ev1", "ev2", "ev3"]


def test_a_first_group_that_finds_nothing_is_no_matter_of_concern(start):
    with capture_logs() as logs:
        start("workers")
    line = told(logs)
    assert (line["event"], line["log_level"], line["old_events"]) == ("group.new", "info", 0)


def test_a_second_group_is_given_only_what_comes_after_its_start(start, publish):
    publish("ev1", "ev2")
    start("workers")
    with capture_logs() as logs:
        worker = start("notify")
    line = told(logs)
    assert (line["old_events"], line["left_out"], line["other_groups"]) == (0, 2, "workers")
    assert line["log_level"] == "warning"
    assert "flybridge replay --from 2h --group notify" in line["hint"]
    assert "if its name is a mistake (there are workers)" in line["hint"]
    publish("ev3")
    assert worker.given() == ["ev3"]


def test_what_no_group_reads_is_given_to_a_second_group_too(start, publish):
    publish("ev1")
    publish("ev2", event_type=CONTACT)
    start("workers", covered=frozenset({"queue:im"}))
    worker = start("people", covered=frozenset({"queue:contact", "queue:im"}))
    assert worker.given() == ["ev2"]


@pytest.mark.parametrize(
    ("start_from", "expected"),
    [("all", ["a", "b", "c"]), ("2h", ["b", "c"]), ("now", []), ("1d", ["a", "b", "c"])],
)
def test_a_new_group_begins_where_it_is_told_to(redis, keys, start, start_from, expected):
    start("workers")
    for event_id, hours in (("a", 3), ("b", 1.5), ("c", 1)):
        old_event(redis, keys, event_id, hours)
    with capture_logs() as logs:
        worker = start("audit", start_from)
    line = told(logs)
    assert (line["old_events"], line["left_out"]) == (len(expected), 3 - len(expected))
    assert worker.given(IM) == expected


def test_the_first_group_may_leave_out_what_waited(start, publish):
    publish("ev1")
    assert start("workers", "now").given() == []


def test_a_group_that_exists_goes_on_where_it_was_whatever_it_is_told(start, publish):
    start("workers")
    first = start("audit", "now")
    publish("ev1", "ev2")
    assert first.given() == ["ev1", "ev2"]
    publish("ev3")
    with capture_logs() as logs:
        again = start("audit", "all")
    assert told(logs)["event"] == "group.exists"
    assert again.given() == ["ev3"]


def test_a_group_whose_subscription_was_removed_by_hand_is_no_new_one(redis, keys, publish, start):
    start("workers")
    start("audit", "all").given()
    publish("ev1")
    redis.srem(keys.subscriptions, "audit|*")
    with capture_logs() as logs:
        worker = start("audit")
    assert logs == []
    redis.xgroup_destroy(keys.stream(IM), "audit")
    worker.reader.make_groups_again()
    assert worker.given() == ["ev1"]


def test_a_type_that_comes_later_is_read_from_its_first_event(start, publish):
    """Though others were there first, and the worker was told to begin now."""
    other = start("workers")
    worker = start("notify", "now")
    publish("ev1", event_type=CONTACT)
    assert other.given(CONTACT) == ["ev1"]
    assert worker.given(CONTACT) == ["ev1"]


def test_what_comes_between_the_start_of_a_worker_and_its_first_look_is_for_it(
    redis, keys, publish, start
):
    """The types that the group finds there are none that came before it."""
    start("workers")
    worker = Worker(redis, keys, "notify", "now")
    publish("ev1")
    worker.started()
    publish("ev2", event_type=CONTACT)
    assert worker.given() == ["ev1", "ev2"]


def test_two_workers_of_a_new_group_begin_as_one(redis, keys, publish, start):
    publish("ev0")
    start("workers")
    first, second = (Worker(redis, keys, "notify") for _ in range(2))
    first.started()
    publish("ev1")
    second.started()
    publish("ev2", event_type=CONTACT)
    assert sorted(first.given() + second.given()) == ["ev1", "ev2"]


def test_a_queue_that_a_group_takes_up_later_begins_as_a_new_group_would(start, publish):
    """The events of other queues are none that it has missed."""
    publish("ev1", event_type=CONTACT)
    start("workers")
    worker = start("audit", covered=frozenset({"queue:im"}))
    with capture_logs() as logs:
        later = start("audit", covered=frozenset({"queue:im", "queue:contact"}))
    line = told(logs)
    assert (line["event"], line["streams"], line["left_out"]) == ("group.reads_more", 1, 1)
    publish("ev2", event_type=CONTACT)
    assert later.given() == ["ev2"]
    assert worker.given(IM) == []


def test_a_handler_more_in_a_queue_that_is_read_is_nothing_to_tell_of(start, publish):
    publish("ev1")
    start("workers")
    with capture_logs() as logs:
        start("workers", covered=frozenset({"*", f"type:{IM}"}))
    assert logs == []


def test_a_group_that_redis_lost_is_made_anew_where_it_began(redis, keys, publish, start):
    publish("ev0")
    start("workers")
    worker = start("notify")
    publish("ev1")
    assert worker.given() == ["ev1"]
    redis.xgroup_destroy(keys.stream(IM), "notify")
    worker.reader.make_groups_again()
    assert worker.given() == ["ev1"]

    redis.xgroup_destroy(keys.stream(IM), "notify")
    redis.delete(keys.starts("notify"), keys.joined("notify"))
    redis.srem(keys.subscriptions, "notify|*")
    worker.reader.make_groups_again()
    assert worker.given() == ["ev1"]


def test_a_forgotten_group_that_comes_back_begins_like_a_new_one(redis, keys, publish, start):
    publish("ev0")
    start("workers")
    start("audit").given()
    publish("ev1")
    Groups(redis, keys, "me").forget("audit")
    assert not redis.exists(keys.starts("audit"))
    publish("ev2")
    back = start("audit")
    publish("ev3")
    assert back.given() == ["ev3"]


def test_a_forgotten_group_is_given_what_no_other_reads(redis, keys, publish, start):
    """And what it had been given as far back as its marks tell what it had done."""
    start("workers").given()
    publish("ev1")
    Groups(redis, keys, "me").forget("workers")
    publish("ev2")
    assert start("workers").given() == ["ev1", "ev2"]


def test_a_redis_that_lost_everything_loses_no_new_event(redis, publish, start):
    worker = start("notify", "now")
    worker.given()
    redis.flushall()
    publish("ev1")
    worker.reader.make_groups_again()
    assert worker.given() == ["ev1"]


def test_nothing_begins_while_it_is_not_known_what_is_read(redis, keys, start):
    start("notify", covered=frozenset())
    assert not redis.exists(keys.subscriptions, keys.starts("notify"))


def test_the_start_is_asked_again_when_redis_was_away(redis, keys, publish, monkeypatch, start):
    start("workers")
    publish("ev1")
    consumer = Consumer(redis, keys, "notify", "n1")
    beginning = Beginning(redis, keys, "notify", "auto", None)
    worker = Worker(redis, keys, "notify")
    worker.reader = StreamReader(consumer, 30.0, beginning=beginning)
    monkeypatch.setattr(redis, "time", _away)
    with pytest.raises(ConnectionError):
        worker.started()
    monkeypatch.undo()
    publish("ev2")
    worker.started()
    publish("ev3")
    assert worker.given() == ["ev3"]


def test_a_count_of_many_old_events_is_bounded_and_says_so(
    redis, keys, start, monkeypatch, publish
):
    start("workers")
    for event_type in (IM, CONTACT):
        publish(*(f"{event_type}-{n}" for n in range(30)), event_type=event_type)
    monkeypatch.setattr(counting, "PAGE", 5)
    monkeypatch.setattr(counting, "BOUND", 20)
    monkeypatch.setattr(module, "BOUND", 20)
    with capture_logs() as logs:
        worker = start("audit", "1h")
    line = told(logs)
    assert line["old_events"] == "20 or more"
    assert "20 or more events from before its start" in line["hint"]
    assert len(worker.given()) == 60


def test_keys_spoilt_by_hand_stop_no_other_stream(redis, keys, start, publish):
    publish("ev1")
    redis.sadd(keys.types, "a.wrong.type", b"\xff\xfe")
    redis.set(keys.stream("a.wrong.type"), "x")
    redis.set(keys.starts("workers"), "x")
    redis.hset(keys.starts("notify"), keys.stream(IM), "not an id")
    assert start("workers").given(IM) == ["ev1"]
    assert start("notify").given(IM) == ["ev1"]
    redis.delete(keys.subscriptions)
    redis.set(keys.subscriptions, "x")
    with capture_logs() as logs:
        worker = start("audit")
        worker.reader.subscribe(EVERYTHING)
    assert [line["event"] for line in logs].count("key.spoilt") == 1
    assert worker.given(IM) == ["ev1"]
    redis.delete(keys.subscriptions)
    worker.reader.subscribe(EVERYTHING)
    assert redis.smembers(keys.subscriptions) == {b"audit|*"}


def test_a_user_who_may_not_ask_for_the_length_counts(redis, keys, start, publish, monkeypatch):
    def forbidden(stream: str) -> int:
        raise NoPermissionError("no permissions to run the 'xlen' command")

    publish("ev1", "ev2")
    monkeypatch.setattr(redis, "xlen", forbidden)
    with capture_logs() as logs:
        start("workers")
    assert told(logs)["old_events"] == 2


def test_a_group_begins_on_a_full_redis(redis, keys, start, publish, full):
    publish("ev1")
    full()
    assert start("workers").given(IM) == ["ev1"]


def test_the_moment_of_a_start_is_by_the_clock_of_redis(redis):
    assert abs(moment(redis) - time.time() * 1000) < 5_000


def _away() -> None:
    raise ConnectionError("gone")
