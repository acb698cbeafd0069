"""A bridge's status as Prometheus metrics, made anew at each scrape.

`/metrics` of the ops port serves them. A program that embeds bridges uses
`exposition(manager.status())` in a web framework of its own, or
`registry.register(StatusCollector(manager.status))` with a registry of its own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import get_args

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from flybridge.bridge.errors import Misused
from flybridge.bridge.ops.status import State, Status
from flybridge.bridge.protocol.delivery import FrameOutcome
from flybridge.bridge.publishing.results import Refusal

__all__ = ["StatusCollector", "exposition"]

APP = "app"
"""The label that every sample has: the app id."""

OUTCOMES = ("published", "duplicate", "buried", *get_args(Refusal))
"""Of `Counters`. What has not happened yet is exported as 0: a counter that first appears as 1 has
no increase."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: a counter if its name ends in `_total`, else a gauge."""

    name: str
    read: Callable[[Status], float | Mapping[str, float] | None]
    """Its value, or one per value of `label`; None: no sample."""
    help: str
    label: str = ""
    leading: bool = False
    """Only of a leader: what other bridges know is out of date."""


def _which(value: StrEnum) -> Mapping[str, float]:
    """1 for this member, 0 for all others."""
    return {each.value: each is value for each in type(value)}


def _from_zero(names: Iterable[str], counts: Mapping[str, int]) -> Mapping[str, float]:
    return {**dict.fromkeys(names, 0), **counts}


def _seconds(unix_ms: int | None) -> float | None:
    return None if unix_ms is None else unix_ms / 1000


# fmt: off
ROWS = (
    # Leadership
    Row("feishu_bridge_is_leader", lambda status: status.state is State.LEADING,
        "1 on the bridge that leads, 0 on the others. The sum over all bridges of an app is 1."),
    Row("feishu_bridge_state", lambda status: _which(status.state),
        "1 for the state the bridge is in, 0 for the others.", label="state"),
    Row("feishu_bridge_state_start_time_seconds", lambda status: _seconds(status.since),
        "Unix time at which the bridge came into its state."),
    Row("feishu_bridge_start_time_seconds", lambda status: _seconds(status.started_at),
        "Unix time at which the bridge was started."),
    Row("feishu_bridge_leaderships_total", lambda status: status.leaderships,
        "Times this bridge came to lead. Many in a short time: leadership flaps, see its log."),
    Row("feishu_bridge_term", lambda status: status.term,
        "The term in which the bridge leads, which only grows from leader to leader; 0 on others."),
    Row("feishu_bridge_lease_renew_duration_seconds", lambda status: status.renew_seconds,
        "How long Redis took to answer the last lease call."),
    Row("feishu_bridge_lease_renew_failures_total", lambda status: status.lease_failures,
        "Lease calls that Redis did not answer."),
    Row("feishu_bridge_lease_answer_age_seconds", lambda status: status.redis_age,
        "Seconds since Redis last answered a lease call. Beyond the lease duration a leader steps"
        " down and no bridge is ready."),
    Row("feishu_bridge_loop_lag_seconds", lambda status: status.loop_lag,
        "How late the event loop last was: something blocks it, or the host is overloaded."),
    # The connection to Feishu
    Row("feishu_ws_connected", lambda status: status.connected_for is not None,
        "1 with an open connection to Feishu, which only the leader has."),
    Row("feishu_ws_connection_age_seconds", lambda status: status.connected_for,
        "For how long the connection has been open."),
    Row("feishu_ws_connects_total", lambda status: status.connects,
        "Connections made. Up to ten or so in an hour are normal with Feishu."),
    Row("feishu_ws_offline_seconds", lambda status: status.offline,
        "For how long a leader has had no connection; 0 when connected, and on others."),
    Row("feishu_bridge_credentials", lambda status: _which(status.credentials),
        "1 for what Feishu last said of this bridge's credentials, 0 for the rest. A bridge that is"
        " refused does not stand for the lease; see /status for why.", label="standing"),
    Row("feishu_bridge_unreached_seconds", lambda status: status.unreached,
        "For how long a bridge could not ask Feishu about its credentials; 0 when it answered."),
    Row("feishu_ws_degraded", lambda status: status.degraded,
        "1 while Feishu refuses the app, or has too many connections of it; see /status for why."),
    Row("feishu_ws_frames_total", lambda status: _from_zero(FrameOutcome, status.frames),
        "Frames that came in, by what became of them. Nothing is wrong with event, fragment, pong,"
        " ping, heartbeat and auth; all else should stay rare.", label="outcome"),
    # Its heartbeat
    Row("feishu_ws_heartbeats_total", lambda status: status.heartbeat.total,
        "Pings that were answered."),
    Row("feishu_ws_heartbeats_missed_total", lambda status: status.heartbeat.missed,
        "Pings that were not answered before the next one, or before the connection was given up."),
    Row("feishu_ws_heartbeat_round_trip_seconds", lambda status: status.heartbeat.round_trip,
        "From the last answered ping to its pong.", leading=True),
    Row("feishu_ws_heartbeat_round_trip_mean_seconds",
        lambda status: status.heartbeat.mean_round_trip,
        "Mean over the last 20 round trips.", leading=True),
    Row("feishu_ws_heartbeat_interval_mean_seconds", lambda status: status.heartbeat.mean_interval,
        "Mean of the last 20 intervals between two pongs.", leading=True),
    Row("feishu_ws_heartbeat_interval_deviation_seconds", lambda status: status.heartbeat.deviation,
        "Standard deviation of the last 10 intervals between pongs from those between pings.",
        leading=True),
    Row("feishu_ws_ping_interval_seconds", lambda status: status.heartbeat.ping_interval,
        "Seconds between two pings now: fewer after late or missing pongs, more again in calm.",
        leading=True),
    Row("feishu_ws_heartbeat_rhythm", lambda status: _which(status.heartbeat.rhythm),
        "1 for how the heartbeat goes, the worst that holds; 0 for the others.",
        label="rhythm", leading=True),
    Row("feishu_ws_heartbeat_unstable", lambda status: status.heartbeat.unstable,
        "1 while that deviation is above 5 s: pongs come irregularly, check the network.",
        leading=True),
    Row("feishu_ws_heartbeat_silent", lambda status: status.heartbeat.silent,
        "1 once no pong has come for FLYBRIDGE_PONG_ALARM seconds; check network and proxy.",
        leading=True),
    Row("feishu_ws_heartbeat_last_timestamp_seconds",
        lambda status: _seconds(status.heartbeat.last),
        "Unix time of the last pong to a ping, on whichever connection."),
    Row("feishu_ws_pong_age_seconds", lambda status: status.pong_age,
        "Seconds since the last pong of the present connection."),
    Row("feishu_ws_pong_seen", lambda status: status.pong_seen,
        "1 once a pong has come in this leadership; a leader is not ready before."),
    # Events, and the Redis they go to
    Row("feishu_bridge_deliveries_total", lambda status: _from_zero(OUTCOMES, status.outcomes),
        "Pushes of Feishu by what became of them. published, duplicate: Redis holds the event."
        " buried: unreadable, kept as a dead letter. fenced: another bridge leads by now. All else"
        " was refused, and Feishu pushes it again.", label="outcome"),
    Row("feishu_bridge_waiting_entries", lambda status: status.waiting,
        "Events on their way into Redis; many of them: Redis is slow or gone."),
    Row("feishu_bridge_publish_failing", lambda status: bool(status.publish_trouble),
        "1 while Redis refuses events, or does not answer in time; /status says why.",
        leading=True),
    Row("feishu_redis_full", lambda status: status.full,
        "1 while Redis has no room: every event is refused, and Feishu keeps it for some hours.",
        leading=True),
    Row("feishu_redis_memory_used_bytes", lambda status: status.memory_used or None,
        "Memory that Redis counts against its limit.", leading=True),
    Row("feishu_redis_memory_limit_bytes", lambda status: status.memory_limit or None,
        "Redis' maxmemory; missing without one.", leading=True),
    Row("feishu_stream_trimmed_total", lambda status: status.trimmed,
        "Entries removed from streams because every group has acknowledged them."),
    Row("feishu_stream_trim_failing", lambda status: bool(status.trim_trouble),
        "1 while Redis refuses what trimming needs, so that streams grow; /status says why.",
        leading=True),
    Row("feishu_stream_lagging_groups", lambda status: status.lagging,
        "Pairs of stream and group that hold back entries older than the retention;"
        " `flybridge groups list` shows which.", leading=True),
    Row("feishu_groups_without_workers", lambda status: status.groups_without_workers,
        "Groups with events that wait, and no worker at work; the log says which.", leading=True),
    Row("feishu_stream_unread_streams", lambda status: status.unread,
        "Streams whose events no group reads, so that they are kept; the log says which.",
        leading=True),
    # Traces
    Row("feishu_bridge_spans_lost_total", lambda status: status.spans_lost,
        "Spans that did not come to the collector: it is away, or slower than events come."),
)
# fmt: on


class StatusCollector(Collector):
    """The metrics of bridges of different apps, for a `CollectorRegistry`.

    Args:
        statuses: called at each scrape, like `ConnectionManager.status`; a bridge that was never
            started has no samples.
    """

    def __init__(self, *statuses: Callable[[], Status]) -> None:
        self._statuses = statuses

    def describe(self) -> Iterable[Metric]:
        """All metrics without samples; a registry asks for it before anything runs."""
        return _families(())

    def collect(self) -> Iterable[Metric]:
        return _families(list(self._asked()))

    def _asked(self) -> Iterator[Status]:
        for status in self._statuses:
            with suppress(Misused):
                yield status()


def exposition(*statuses: Status, accept: str = "") -> tuple[bytes, str]:
    """The metrics of bridges of different apps as text, and its content type.

    Args:
        accept: the request's header; Prometheus' own format unless it wants OpenMetrics.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # prometheus-client compares versions without having looked at them
        encode, content_type = choose_encoder("")
    known = StatusCollector(*(partial(_itself, status) for status in statuses))
    return encode(known), content_type


def _itself(status: Status) -> Status:
    return status


def _families(statuses: Sequence[Status]) -> Iterator[Metric]:
    yield _info("feishu_build_info", "What runs.", statuses, _build)
    yield _info(
        "feishu_bridge_info",
        "What an ack waits for: FLYBRIDGE_DURABILITY.",
        statuses,
        lambda status: {"durability": status.durability},
    )
    for row in ROWS:
        yield _family(row, statuses)
    yield _ack_durations(statuses)


def _family(row: Row, statuses: Sequence[Status]) -> Metric:
    kind = CounterMetricFamily if row.name.endswith("_total") else GaugeMetricFamily
    labels = [APP, row.label] if row.label else [APP]
    family = kind(row.name, row.help, labels=labels, unit=_unit(row.name))
    for status in statuses:
        if row.leading and status.state is not State.LEADING:
            continue
        value = row.read(status)
        if isinstance(value, Mapping):
            for name, each in value.items():
                family.add_metric([status.app_id, name], each)
        elif value is not None:
            family.add_metric([status.app_id], value)
    return family


def _unit(name: str) -> str:
    unit = name.removesuffix("_total").rpartition("_")[2]
    return unit if unit in ("seconds", "bytes") else ""


def _info(
    name: str,
    help: str,
    statuses: Sequence[Status],
    read: Callable[[Status], Mapping[str, str]],
) -> Metric:
    """A metric without a number: 1, with labels."""
    family = Metric(name, help, "gauge")
    for status in statuses:
        family.add_sample(name, {APP: status.app_id, **read(status)}, 1)
    return family


def _build(status: Status) -> Mapping[str, str]:
    try:
        ours = version("flybridge")
    except PackageNotFoundError:  # a copy that was not installed
        ours = "unknown"
    return {"version": ours, "python": platform.python_version()}


def _ack_durations(statuses: Sequence[Status]) -> Metric:
    family = HistogramMetricFamily(
        "feishu_bridge_ack_duration_seconds",
        "From the receipt of a push to its ack. Feishu pushes again what has no ack after 3 s.",
        labels=[APP],
        unit="seconds",
    )
    for status in statuses:
        bounds = map(floatToGoString, (*status.ack_bounds, float("inf")))
        buckets = list(zip(bounds, accumulate(status.ack_counts), strict=True))
        family.add_metric([status.app_id], buckets, status.ack_seconds)
    return family
