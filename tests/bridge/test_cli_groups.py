"""The consumer groups from the command line, over a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from bridge import cli, logs
from bridge.local.valkey import EmbeddedRedis
from bridge.settings import BridgeSettings
from bridge.streams import Keys
from workers import groups

KEYS = Keys("cli_test")
TYPE = "im.message.receive_v1"
STREAM = KEYS.stream(TYPE)

Flybridge = Callable[..., Result]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as embedded:
        yield embedded


@pytest.fixture
def redis(server: EmbeddedRedis) -> Iterator[Redis]:
    """Three events; `workers` has settled one and holds one, `audit` has subscribed only."""
    client = Redis.from_url(server.url, protocol=2)
    client.flushall()
    client.sadd(KEYS.types, TYPE, "contact.user.created_v3")
    for number in range(3):
        client.xadd(STREAM, {"event_id": f"ev{number}"})
    client.xgroup_create(STREAM, "workers", "0")
    read = client.xreadgroup("workers", "c1", {STREAM: ">"}, count=2)
    client.xack(STREAM, "workers", read[0][1][0][0])
    client.sadd(KEYS.subscriptions, "workers|*", "audit|queue:im")
    client.sadd(KEYS.replays("workers"), TYPE)
    client.xadd(KEYS.replay("workers", TYPE), {"event_id": "ev9"})
    yield client
    client.close()


@pytest.fixture
def flybridge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: EmbeddedRedis, redis: Redis
) -> Flybridge:
    for field in BridgeSettings.model_fields:
        monkeypatch.delenv(f"FLYBRIDGE_{field.upper()}", raising=False)
    monkeypatch.setattr(logs, "configure", lambda *args, **options: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBRIDGE_APP_ID", "cli_test")
    monkeypatch.setenv("FLYBRIDGE_REDIS_URL", server.url)
    return lambda *words: CliRunner().invoke(cli.cli, ["groups", *words])


def test_the_list_says_what_each_group_has_not_done(flybridge: Flybridge) -> None:
    rows = [line.split() for line in flybridge("list").output.splitlines()]
    assert rows[1:] == [["audit", "0", "0", "0", "0"], ["workers", "1", "1", "1", "1"]]


def test_a_group_with_workers_at_work_is_not_forgotten(flybridge: Flybridge, redis: Redis) -> None:
    answer = flybridge("forget", "workers", "--yes")
    assert answer.exit_code == 1
    assert "stop them" in answer.output
    assert redis.xinfo_groups(STREAM)


def test_nothing_is_forgotten_unless_it_is_meant(
    flybridge: Flybridge, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "AT_WORK", 0.0)
    answer = flybridge("forget", "workers")
    assert answer.exit_code == 1
    assert "2 events" in answer.output
    assert redis.xinfo_groups(STREAM)


def test_a_forgotten_group_holds_nothing_any_more(
    flybridge: Flybridge, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "AT_WORK", 0.0)
    assert flybridge("forget", "workers", "--yes").exit_code == 0
    assert redis.xinfo_groups(STREAM) == []
    assert redis.smembers(KEYS.subscriptions) == {b"audit|queue:im"}
    assert not redis.exists(KEYS.replays("workers"), KEYS.replay("workers", TYPE))
    assert redis.xlen(STREAM) == 3
    assert redis.xlen(KEYS.audit) == 1
    assert flybridge("forget", "audit", "--yes").exit_code == 0
    assert not redis.exists(KEYS.subscriptions)


def test_a_group_that_is_none_is_named(flybridge: Flybridge) -> None:
    answer = flybridge("forget", "wrokers", "--yes")
    assert answer.exit_code == 1
    assert "there is no group wrokers" in answer.output
