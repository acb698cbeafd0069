"""The consumer groups from the command line, over a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from click.testing import Result
from redis import Redis

from flybridge.bridge.errors import EXIT_REDIS
from flybridge.bridge.store.lifetimes import UNSETTLED
from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.spoilt_keys import SpoiltKeys
from flybridge.bridge.store.streams import Keys
from flybridge.workers.group import counting
from flybridge.workers.group.counting import Count, count_after
from flybridge.workers.group.presence import Presence
from flybridge.workers.operate import groups
from flybridge.workers.routes.coverage import Coverage

KEYS = Keys("cli_test")
TYPE = "im.message.receive_v1"
QUIET = "im.chat.updated_v1"
STREAM = KEYS.stream(TYPE)

Flybridge = Callable[..., Result]


@pytest.fixture
def redis(cli_redis: Redis) -> Redis:
    """Three events; `workers` has settled one and holds one, `audit` has subscribed only. One more
    was replayed to `workers`, who have not seen it yet.

    No event of QUIET has come: the bridge knows nothing of the stream that a worker made.
    """
    client = cli_redis
    client.sadd(KEYS.types, TYPE, "contact.user.created_v3")
    for number in range(3):
        client.xadd(STREAM, {"event_id": f"ev{number}"})
    client.xgroup_create(STREAM, "workers", "0")
    client.xgroup_create(KEYS.stream(QUIET), "workers", "0", mkstream=True)
    read = client.xreadgroup("workers", "left", {STREAM: ">"}, count=2)
    client.xack(STREAM, "workers", read[0][1][0][0])
    client.sadd(KEYS.subscriptions, "workers|*", "audit|queue:im", f"audit|type:{TYPE}")
    client.sadd(KEYS.replays("workers"), TYPE)
    client.xadd(KEYS.replay("workers", TYPE), {"event_id": "ev9"})
    return client


@pytest.fixture
def flybridge(flybridge: Flybridge, redis: Redis) -> Flybridge:
    return partial(flybridge, "groups")


@pytest.fixture
def worker(redis: Redis) -> Presence:
    """Of `audit`, and at work; it has been given no entry."""
    worker = Presence(redis, KEYS, "audit", "celery@here.1.ab", SpoiltKeys(redis))
    worker.tell(frozenset({"queue:im"}), Coverage(queues=("im",)))
    return worker


def test_a_key_that_stands_still_is_shown_with_what_it_waits_for_and_the_cure(
    flybridge: Flybridge, redis: Redis
) -> None:
    (entry_id, _), *_ = redis.xrange(STREAM)
    ms, _, seq = entry_id.decode().partition("-")
    member = f"{ms:0>20}-{seq:0>20}|{STREAM}"
    line = f"{KEYS.order('workers')}:{TYPE}:oc_1"
    redis.zadd(line, {member: 0})
    redis.hset(KEYS.state("workers", "ev0"), mapping={"state": "running"})
    redis.hset(KEYS.stalls("workers"), line, f"1000|1000|1|{member}")
    output = flybridge("list").output.splitlines()
    (shown,) = [each for each in output if "stood still" in each]
    assert shown.startswith("workers: an order (ordered_by), key ")
    assert "event ev0 comes first and waits for its handler to end" in shown
    assert shown.endswith(f"redis-cli XACK {STREAM} workers {entry_id.decode()}")


def listed(flybridge: Flybridge) -> list[list[str]]:
    return [line.split() for line in flybridge("list").output.splitlines()[1:]]


def test_the_list_says_what_each_group_has_not_done_and_what_it_reads(
    flybridge: Flybridge,
) -> None:
    assert listed(flybridge) == [
        ["audit", "0", "0", "3", "0", "queue:im"],
        ["workers", "2", "1", "2", "0", "*"],
    ]


def test_the_list_names_the_types_that_no_group_reads(flybridge: Flybridge, redis: Redis) -> None:
    assert flybridge("list").stderr == ""
    redis.srem(KEYS.subscriptions, "workers|*")
    for _ in range(2):
        redis.xadd(KEYS.stream("contact.user.created_v3"), {"event_id": "unread"})
    told = flybridge("list").stderr
    assert told == "no group reads the events of contact.user.created_v3 (2)\n"


@pytest.mark.parametrize(
    "key", [KEYS.subscriptions, KEYS.workers("workers"), KEYS.replays("workers")]
)
def test_a_key_overwritten_by_hand_is_named(flybridge: Flybridge, redis: Redis, key: str) -> None:
    redis.set(key, "by hand")
    told = flybridge("list")
    assert told.exit_code == EXIT_REDIS
    assert f"{key} is spoilt" in told.stderr


def test_a_lag_that_redis_does_not_know_is_counted(
    flybridge: Flybridge, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has none once an unread entry was deleted."""
    ids = [redis.xadd(STREAM, {"event_id": f"late{number}"}) for number in range(20)]
    redis.xdel(STREAM, ids[3])
    (group,) = redis.xinfo_groups(STREAM)
    assert group["lag"] is None
    assert listed(flybridge)[1][:4] == ["workers", "2", "1", "21"]
    assert "the 22 events" in flybridge("forget", "workers").output
    monkeypatch.setattr(counting, "PAGE", 5)
    assert listed(flybridge)[1][:4] == ["workers", "2", "1", "21"]
    monkeypatch.setattr(counting, "BOUND", 10)
    assert listed(flybridge)[1][:4] == ["workers", "2", "1", "11+"]
    assert "the 12 or more events" in flybridge("forget", "workers").output


def test_a_page_of_large_entries_ends_early(redis: Redis) -> None:
    """So that counting holds up nobody else; the count is the same."""
    ids = [redis.xadd(STREAM, {"envelope": "x" * 600_000}) for _ in range(20)]
    call = Call(load("count"), (STREAM,), (f"({ids[0].decode()}", 1000))
    ((number, following),) = run_all(redis, [call])
    assert 0 < number < 19
    assert following == b"(" + ids[number]
    assert count_after(redis, STREAM, ids[0].decode()) == Count(19)


def test_a_type_that_goes_elsewhere_than_its_domain_is_listed_by_itself(
    flybridge: Flybridge, redis: Redis
) -> None:
    redis.sadd(KEYS.subscriptions, "audit|type:vc.meeting.meeting_ended_v1")
    assert listed(flybridge)[0][5:] == ["queue:im", "type:vc.meeting.meeting_ended_v1"]


@pytest.mark.usefixtures("worker")
def test_a_worker_counts_before_its_first_entry(flybridge: Flybridge, redis: Redis) -> None:
    assert listed(flybridge)[0] == ["audit", "0", "0", "3", "1", "queue:im"]
    answer = flybridge("forget", "audit", "--yes")
    assert answer.exit_code == 1
    assert "1 workers at work (celery@here.1.ab); stop them" in answer.output
    assert b"audit|queue:im" in redis.smembers(KEYS.subscriptions)


def test_a_worker_counts_no_more_when_it_has_stopped(
    flybridge: Flybridge, worker: Presence
) -> None:
    worker.withdraw()
    assert flybridge("forget", "audit", "--yes").exit_code == 0


def test_a_consumer_counts_as_a_worker_that_says_nothing_of_itself(
    flybridge: Flybridge, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in another language may."""
    redis.xreadgroup("workers", "c1", {STREAM: ">"})
    answer = flybridge("forget", "workers", "--yes")
    assert answer.exit_code == 1
    assert "1 workers at work (c1)" in answer.output
    assert redis.xinfo_groups(STREAM)
    monkeypatch.setattr(groups, "AT_WORK", 0.0)
    assert flybridge("forget", "workers", "--yes").exit_code == 0


def test_nothing_is_forgotten_unless_it_is_meant(flybridge: Flybridge, redis: Redis) -> None:
    answer = flybridge("forget", "workers")
    assert answer.exit_code == 1
    assert "the 3 events it" in answer.output
    assert "the 3 events" in flybridge("forget", "audit").output
    assert redis.xinfo_groups(STREAM)


def test_a_forgotten_group_holds_nothing_any_more(flybridge: Flybridge, redis: Redis) -> None:
    answer = flybridge("forget", "workers", "--yes")
    assert answer.output == "workers has left 2 streams\n"
    assert redis.xinfo_groups(STREAM) == redis.xinfo_groups(KEYS.stream(QUIET)) == []
    assert redis.smembers(KEYS.subscriptions) == {b"audit|queue:im", f"audit|type:{TYPE}".encode()}
    assert not redis.exists(KEYS.replays("workers"), KEYS.replay("workers", TYPE))
    assert redis.xlen(STREAM) == 3
    assert redis.xlen(KEYS.audit) == 1
    assert flybridge("forget", "audit", "--yes").exit_code == 0
    assert not redis.exists(KEYS.subscriptions)


def test_what_was_replayed_to_a_forgotten_group_leaves_nothing_behind_for_ever(
    flybridge: Flybridge, redis: Redis
) -> None:
    redis.hset(KEYS.state("workers", "ev9"), mapping={"state": "retry", "due": 0})
    redis.xadd(KEYS.replay("workers", TYPE), {"event_id": "ev8"})
    redis.set(KEYS.state("workers", "ev8"), "has an end already", ex=100)
    assert flybridge("forget", "workers", "--yes").exit_code == 0
    assert 0 < redis.ttl(KEYS.state("workers", "ev9")) <= UNSETTLED
    assert 0 < redis.ttl(KEYS.state("workers", "ev8")) <= 100


def test_a_group_that_is_none_is_named(flybridge: Flybridge) -> None:
    answer = flybridge("forget", "wrokers", "--yes")
    assert answer.exit_code == 1
    assert "there is no group wrokers" in answer.output
