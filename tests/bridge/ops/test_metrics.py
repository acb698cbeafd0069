"""The metrics of a bridge: nothing of its status is forgotten, and Prometheus can read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from enum import StrEnum
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.ops.metrics import ROWS, StatusCollector, exposition
from flybridge.bridge.ops.status import Standing, State, Status
from flybridge.bridge.protocol.heartbeat import Beat, HeartbeatStatistics, Rhythm

HEARTBEAT = HeartbeatStatistics(
    total=41, missed=2, recent=(Beat(1_700_000_000_000, 0.1), Beat(1_700_000_020_500, 0.3)),
    last=1_700_000_020_500, ping_interval=24.0, mean_interval=20.5, deviation=0.4, round_trip=0.3,
    mean_round_trip=0.2, rhythm=Rhythm.STEADY, unstable=False, silent=False,
)  # fmt: skip

STATUS = Status(
    identity="a", app_id="cli_test", pid=1, state=State.LEADING, at=1_700_000_021_000,
    started_at=1_600_000_000_500, since=1_650_000_000_000, term=7, leader="a", connected_for=3.0,
    pong_age=0.5, pong_seen=True, offline=0.0, trouble="", degraded=False,
    credentials=Standing.ACCEPTED, unreached=0.0, waiting=4, full=False,
    memory_used=1024, memory_limit=4096, trimmed=5, lagging=6, durability="none", redis_age=1.0,
    renew_seconds=0.001, lease_failures=8, loop_lag=0.25, outcomes={"published": 3, "fenced": 1},
    frames={"event": 4, "pong": 41}, ack_bounds=[0.05, 1.0], ack_counts=[2, 1, 1], ack_seconds=9.5,
    leaderships=2, connects=3, heartbeat=HEARTBEAT,
)  # fmt: skip

APP = {("app", "cli_test")}

LEFT_OUT = {
    "identity": "another at each start: as a label it would make series without end",
    "leader": "as identity; the bridge whose feishu_bridge_is_leader is 1",
    "pid": "as identity",
    "at": "Prometheus has the time of the scrape",
    "trouble": "a sentence",
    "heartbeat.recent": "its means are there",
}
"""Fields of the status that are no metrics, and why."""

FIELDS = [field.name for field in fields(Status) if field.name != "heartbeat"]
FIELDS += [f"heartbeat.{field.name}" for field in fields(HeartbeatStatistics)]


def other(value: Any) -> Any:
    """Not this value, but one of its kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, StrEnum):
        return next(each for each in type(value) if each is not value)
    if isinstance(value, dict):
        return {name: count + 1 for name, count in value.items()}
    if isinstance(value, list):
        return [each + 1 for each in value]
    return value[1:] if isinstance(value, tuple) else value + type(value)(1)


def changed(path: str) -> Status:
    """`STATUS`, with another value of this field."""
    *above, name = path.split(".")
    if not above:
        return replace(STATUS, **{name: other(getattr(STATUS, name))})
    return replace(STATUS, heartbeat=replace(HEARTBEAT, **{name: other(getattr(HEARTBEAT, name))}))


def samples(*statuses: Status) -> dict[str, float]:
    """Sample, with its labels but `app`, → value; as Prometheus' own parser has it."""
    return {
        f"{sample.name} {sorted(sample.labels.items() - APP)}".removesuffix(" []"): sample.value
        for family in read_text(exposition(*statuses)[0].decode())
        for sample in family.samples
    }


def value(name: str, status: Status = STATUS, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: status))
    return registry.get_sample_value(name, {"app": "cli_test", **labels})


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_of_the_status_is_exported_unless_it_is_left_out_on_purpose(path: str) -> None:
    is_exported = exposition(changed(path)) != exposition(STATUS)

    assert is_exported is (path not in LEFT_OUT), (
        "add a row to flybridge.bridge.ops.metrics, or a reason here"
    )


def test_what_is_left_out_exists() -> None:
    assert LEFT_OUT.keys() <= set(FIELDS)


def test_every_metric_has_a_help_text_a_known_type_and_a_sample() -> None:
    families = list(read_text(exposition(STATUS)[0].decode()))

    assert len({family.name for family in families}) == len(families) == len(ROWS) + 3
    for family in families:
        assert len(family.documentation) > 8
        assert family.type in ("counter", "gauge", "histogram")
        assert family.samples


def test_labels_are_few_and_their_values_known_beforehand() -> None:
    labels: dict[str, set[str]] = {}
    for family in read_text(exposition(STATUS)[0].decode()):
        for sample in family.samples:
            for name, each in sample.labels.items():
                labels.setdefault(name, set()).add(each)

    assert labels.pop("app") == {"cli_test"}
    assert labels.keys() == {
        "durability", "le", "outcome", "python", "rhythm", "standing", "state", "version"
    }  # fmt: skip
    assert max(map(len, labels.values())) < 40


def test_openmetrics_says_the_same_and_has_units() -> None:
    text, kind = exposition(STATUS, accept="application/openmetrics-text;version=1.0.0")
    families = list(read_openmetrics(text.decode()))
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }

    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert len(found) == len(samples(STATUS))
    assert sorted(found.values()) == sorted(samples(STATUS).values())
    assert {family.unit for family in families} == {"", "seconds", "bytes"}


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "application/openmetrics-text;version=x"]
)
def test_whoever_asks_for_nothing_known_gets_the_text_format(accept: str) -> None:
    text, kind = exposition(STATUS, accept=accept)

    assert (text, kind) == (exposition(STATUS)[0], "text/plain; version=0.0.4; charset=utf-8")


def test_the_heartbeat_is_told_in_seconds() -> None:
    assert value("feishu_ws_heartbeats_total") == 41
    assert value("feishu_ws_heartbeats_missed_total") == 2
    assert value("feishu_ws_heartbeat_round_trip_seconds") == 0.3
    assert value("feishu_ws_heartbeat_round_trip_mean_seconds") == 0.2
    assert value("feishu_ws_heartbeat_interval_mean_seconds") == 20.5
    assert value("feishu_ws_heartbeat_interval_deviation_seconds") == 0.4
    assert value("feishu_ws_ping_interval_seconds") == 24.0
    assert value("feishu_ws_heartbeat_last_timestamp_seconds") == 1_700_000_020.5
    assert value("feishu_ws_pong_age_seconds") == 0.5
    assert value("feishu_ws_heartbeat_unstable") == value("feishu_ws_heartbeat_silent") == 0
    assert value("feishu_ws_heartbeat_rhythm", rhythm="steady") == 1
    assert value("feishu_ws_heartbeat_rhythm", rhythm="silent") == 0


def test_ack_times_are_a_cumulated_histogram() -> None:
    name = "feishu_bridge_ack_duration_seconds"

    assert [value(f"{name}_bucket", le=bound) for bound in ("0.05", "1.0", "+Inf")] == [2, 3, 4]
    assert (value(f"{name}_count"), value(f"{name}_sum")) == (4, 9.5)


def test_what_has_not_happened_yet_is_zero_and_not_missing() -> None:
    assert value("feishu_bridge_deliveries_total", outcome="fenced") == 1
    assert value("feishu_bridge_deliveries_total", outcome="undurable") == 0
    assert value("feishu_ws_frames_total", outcome="sum_invalid") == 0


def test_an_outcome_nobody_knew_of_is_told_nevertheless() -> None:
    new = replace(STATUS, outcomes={"novel": 1})

    assert value("feishu_bridge_deliveries_total", new, outcome="novel") == 1


@pytest.mark.parametrize("state", sorted(set(State) - {State.LEADING}))
def test_only_a_leader_tells_how_feishu_and_redis_are(state: State) -> None:
    silent = replace(HEARTBEAT, silent=True, rhythm=Rhythm.SILENT)
    was_leader = samples(replace(STATUS, state=state, full=True, heartbeat=silent))

    assert {row.name for row in ROWS if row.leading and row.name in was_leader} == set()
    assert was_leader["feishu_ws_heartbeats_total"] == 41
    assert was_leader["feishu_bridge_is_leader"] == 0


def test_what_is_unknown_has_no_sample() -> None:
    unknown = samples(
        replace(
            STATUS, connected_for=None, pong_age=None, redis_age=None, memory_limit=0,
            heartbeat=replace(HEARTBEAT, last=None, round_trip=None, deviation=None),
        )
    )  # fmt: skip

    for name in (
        "feishu_ws_connection_age_seconds",
        "feishu_ws_pong_age_seconds",
        "feishu_bridge_lease_answer_age_seconds",
        "feishu_redis_memory_limit_bytes",
        "feishu_ws_heartbeat_last_timestamp_seconds",
        "feishu_ws_heartbeat_round_trip_seconds",
        "feishu_ws_heartbeat_interval_deviation_seconds",
    ):
        assert name not in unknown
    assert unknown["feishu_ws_connected"] == 0


def test_bridges_of_several_apps_share_one_exposition() -> None:
    text = exposition(STATUS, replace(STATUS, app_id="cli_other", term=9))[0].decode()

    assert text.count("# HELP feishu_bridge_term ") == 1
    assert 'feishu_bridge_term{app="cli_test"} 7.0' in text
    assert 'feishu_bridge_term{app="cli_other"} 9.0' in text


# In a registry of one's own


@pytest.fixture
def never_started() -> Callable[[], Status]:
    return ConnectionManager(BridgeSettings(app_id="cli_test", app_secret="s")).status


def test_a_bridge_can_be_registered_before_it_is_started(
    never_started: Callable[[], Status],
) -> None:
    registry = CollectorRegistry(auto_describe=True)

    registry.register(StatusCollector(never_started))

    assert b"feishu_bridge_term{" not in generate_latest(registry)


def test_a_registry_asks_anew_at_each_scrape() -> None:
    statuses = iter([STATUS, replace(STATUS, waiting=5)])
    registry = CollectorRegistry()

    registry.register(StatusCollector(lambda: next(statuses)))

    assert b'feishu_bridge_waiting_entries{app="cli_test"} 4.0' in generate_latest(registry)
    assert b'feishu_bridge_waiting_entries{app="cli_test"} 5.0' in generate_latest(registry)
