"""A worker without a bridge says so: another app, another database, or none is running."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import Keys
from flybridge.workers.group.bridges import LOOK_PERIOD, SILENT, START_UP, Bridges


class Stage:
    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.now = 100.0
        self.redis = redis
        self.keys = keys
        self.bridges = Bridges(redis, keys, "redis://here/3", lambda: self.now)

    def look(self, later: float = LOOK_PERIOD) -> list[dict[str, Any]]:
        self.now += later
        with capture_logs() as lines:
            self.bridges.look()
        return list(lines)

    def bridge(self, keys: Keys, age: float = 0.0) -> None:
        row = json.dumps({"at": int((time.time() - age) * 1000)})
        self.redis.hset(keys.bridges, "b1", row)


@pytest.fixture
def stage(redis: Redis, keys: Keys) -> Stage:
    return Stage(redis, keys)


def test_a_worker_without_a_bridge_says_so_once_and_when_one_has_come(stage):
    assert stage.look() == []
    (line,) = stage.look(START_UP)
    assert (line["event"], line["app_id"], line["redis"], line["other_apps"]) == (
        "bridge.missing", stage.keys.app_id, "redis://here/3", "",
    )  # fmt: skip
    assert "flybridge run" in line["hint"]
    assert stage.look() == []
    stage.bridge(stage.keys)
    assert [line["event"] for line in stage.look()] == ["bridge.found"]
    assert stage.look() == []


def test_a_bridge_that_is_there_is_nothing_to_speak_of(stage):
    stage.bridge(stage.keys, age=SILENT - 10)
    assert [stage.look() for _ in range(5)] == [[]] * 5


def test_bridges_that_were_killed_long_ago_are_none(stage):
    stage.bridge(stage.keys, age=SILENT + 10)
    stage.redis.hset(stage.keys.bridges, "b2", "by hand")
    stage.look()
    assert [line["event"] for line in stage.look(START_UP)] == ["bridge.missing"]


def test_bridges_of_other_apps_in_the_database_are_named(stage):
    stage.bridge(Keys("cli_other"))
    stage.look()
    (line,) = stage.look(START_UP)
    assert line["other_apps"] == "cli_other"


def test_a_key_of_a_wrong_type_stops_no_worker(stage):
    stage.redis.set(stage.keys.bridges, "by hand")
    assert [stage.look(START_UP) for _ in range(3)] == [[]] * 3


def test_who_may_not_look_for_others_says_that_its_own_bridge_is_missing(stage, redis):
    redis.acl_setuser(
        "shy", enabled=True, nopass=True, keys="*", commands=["+hgetall", "+time", "+ping"]
    )
    place = redis.connection_pool.connection_kwargs
    shy = Redis(host=place["host"], port=place["port"], username="shy", password="", protocol=2)
    stage.bridges = Bridges(shy, stage.keys, "there", lambda: stage.now)
    stage.look()
    assert [line["event"] for line in stage.look(START_UP)] == ["bridge.missing"]
    shy.close()
    redis.acl_deluser("shy")
