"""A right that is taken from a worker's Redis user: no script takes what it may not read for what
is not there, and each right is told of once, with its cure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.redis_rights import is_denied
from flybridge.bridge.store.scripts import Call, is_spoilt, load, run_all
from flybridge.bridge.store.spoilt_keys import Denials, SpoiltKeys
from flybridge.bridge.store.streams import Keys
from flybridge.workers.group.bridges import Bridges
from flybridge.workers.intake.outages import Outages

GROUP, STREAM, OTHER, THIRD = "workers", "s", "other", "third"
IN_SCRIPT = "ACL failure in script: User w has no permissions to run the '{}' command"


@pytest.fixture
def admin(either_server: EmbeddedRedis) -> Iterator[Redis]:
    with Redis.from_url(either_server.url, protocol=2) as client:
        client.flushall()
        client.acl_setuser("w", enabled=True, passwords=["+pw"], keys="*", commands=["+@all"])
        client.xadd(STREAM, {"event_type": "t", "event_id": "e"}, id="5-1")
        client.xgroup_create(STREAM, GROUP, "0")
        client.xreadgroup(GROUP, "me", {STREAM: ">"})
        client.zadd(OTHER, {"00000000000000000005-00000000000000000001|s": 1})
        yield client
        client.acl_deluser("w")


@pytest.fixture
def redis(admin: Redis, either_server: EmbeddedRedis) -> Iterator[Redis]:
    with Redis.from_url(either_server.url.replace("://", "://w:pw@"), protocol=2) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "right", "keys", "arguments"),
    [
        ("leave", "xpending", (STREAM,), (GROUP, "me")),
        ("leave_group", "xinfo|groups", (STREAM, "joined"), (GROUP,)),
        ("sweep", "xinfo|consumers", (STREAM,), (GROUP, "me", 0)),
        ("mend_pending", "xinfo|consumers", (STREAM,), (GROUP, "-", 10)),
        ("mend_pending", "xpending", (STREAM,), (GROUP, "-", 10)),
        ("mend_retries", "zscan", (OTHER, STREAM, "e:"), (1000, "0")),
        ("advance", "xpending", (OTHER, "retries"), (GROUP, 60)),
        ("group", "hget", (STREAM, "joined", "starts"), ("new", 1000)),
        ("recover", "zscore", (STREAM, OTHER), (GROUP, "me", 0, 10, "own", "0-0", 10, 0)),
        ("count", "xrange", (STREAM,), ("-", 10)),
    ],
)
def test_a_script_without_a_right_says_so_and_changes_nothing(
    admin: Redis, redis: Redis, name: str, right: str, keys: tuple[str, ...], arguments: Any
) -> None:
    admin.acl_setuser("w", enabled=True, commands=[f"-{right}"])
    held: Any = [admin.dump(STREAM), admin.dump(OTHER)]
    with pytest.raises(ResponseError) as caught:
        run_all(redis, [Call(load(name), keys, arguments)])
    assert is_denied(caught.value)
    assert [admin.dump(STREAM), admin.dump(OTHER)] == held
    admin.acl_setuser("w", enabled=True, commands=[f"+{right}"])
    (answer,) = run_all(redis, [Call(load(name), keys, arguments)])
    assert not isinstance(answer, Exception)


@pytest.mark.parametrize(
    "said",
    [
        IN_SCRIPT.format("get"),
        "The user executing the script can't run this command or subcommand script: f, on "
        "@user_script:3.",
        "The user executing the script can't access at least one of the keys mentioned in the "
        "command arguments script: f, on @user_script:3.",
    ],
)
def test_a_key_is_not_spoilt_for_want_of_a_right(redis: Redis, said: str) -> None:
    error = ResponseError(said)
    assert not is_spoilt(error)
    keys = SpoiltKeys(redis)
    with structlog.testing.capture_logs() as lines:
        keys.tell({STREAM: "stream"}, error)
        keys.tell({OTHER: "zset"}, error)
    (line,) = lines
    assert line["event"] == "redis.denied"
    assert "ACL SETUSER <user> " in line["cure"]


def test_each_right_is_told_of_once_also_in_one_outage() -> None:
    no_pauses = threading.Event()
    no_pauses.set()
    outages = Outages(None, lambda: None, no_pauses)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as lines:
        for right in ("get", "xack", "get", "xack"):
            for place in ("1", "2"):
                with outages.ride_out("settle"):
                    raise ResponseError(f"{IN_SCRIPT.format(right)} script: on @script:{place}.")
    assert [(line["event"], line["cure"].rpartition(" ")[2]) for line in lines] == [
        ("redis.refused", "+get"),
        ("redis.refused", "+xack"),
    ]


def test_a_right_that_was_not_missed_for_a_while_is_news_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("flybridge.bridge.store.spoilt_keys.time.monotonic", lambda: now[0])
    denials, error = Denials(), ResponseError(IN_SCRIPT.format("get"))
    told = []
    for now[0] in (0.0, 50.0, 100.0, 161.0):
        told.append(denials.is_news(error))
    assert told == [True, False, False, True]


def test_who_may_not_look_for_bridges_says_so_once(admin: Redis, redis: Redis, keys: Keys) -> None:
    now = [0.0]
    bridges = Bridges(redis, keys, "here", clock=lambda: now[0])
    admin.acl_setuser("w", enabled=True, commands=["-hgetall"])
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            now[0] += 1000
            bridges.look()
    (line,) = lines
    assert line["event"] == "redis.denied"
    assert "+hgetall" in line["cure"]


def test_the_groups_of_a_stream_that_may_not_be_looked_at_are_not_none(
    admin: Redis, redis: Redis, keys: Keys
) -> None:
    from flybridge.workers.operate.groups import Groups

    admin.sadd(keys.types, "t")
    admin.xgroup_create(keys.stream("t"), GROUP, "0", mkstream=True)
    admin.acl_setuser("w", enabled=True, commands=["-xinfo|groups"])
    with pytest.raises(NoPermissionError):
        list(Groups(redis, keys, "me").states())
