"""Gathers a bridge's status from its parts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from flybridge.bridge.housekeeping.memory import Headroom
from flybridge.bridge.housekeeping.trimming import Trimmer
from flybridge.bridge.leadership.lease import LeaseElector
from flybridge.bridge.leadership.watchdog import Watchdog
from flybridge.bridge.node.credentials import Credentials
from flybridge.bridge.node.reconnector import Reconnector
from flybridge.bridge.ops.status import State, Status, now_ms
from flybridge.bridge.process.boottime import boottime
from flybridge.bridge.publishing.counters import ACK_BOUNDS, Counters
from flybridge.bridge.publishing.publisher import Publisher
from flybridge.bridge.telemetry import tracing
from flybridge.bridge.telemetry.redaction import redact


@dataclass(frozen=True, slots=True)
class SelfReport:
    """The parts that a status is made from."""

    app_id: str
    durability: str
    elector: LeaseElector
    credentials: Credentials
    reconnector: Reconnector
    publisher: Publisher
    headroom: Headroom
    trimmer: Trimmer
    watchdog: Watchdog
    counters: Counters
    started_at: int = field(default_factory=now_ms)

    def status(self, state: State, since: int) -> Status:
        """The status now; `since`: when the bridge came into `state`, in Unix ms."""
        elector, reconnector, counters = self.elector, self.reconnector, self.counters
        credentials, leads = self.credentials, state is State.LEADING
        headroom, trimmer = self.headroom, self.trimmer
        return Status(
            identity=elector.identity,
            app_id=self.app_id,
            pid=os.getpid(),
            state=state,
            at=now_ms(),
            started_at=self.started_at,
            since=since,
            term=elector.term,
            leader=elector.holder,
            connected_for=_age(reconnector.connected_at),
            pong_age=_age(reconnector.pong_at),
            pong_seen=reconnector.pong_seen,
            offline=reconnector.offline,
            credentials=credentials.standing,
            unreached=credentials.unreached,
            trouble=redact(reconnector.trouble if leads else credentials.trouble),
            degraded=reconnector.degraded if leads else credentials.are_refused,
            waiting=self.publisher.waiting,
            full=headroom.full,
            memory_used=headroom.memory.used,
            memory_limit=headroom.memory.limit,
            trimmed=trimmer.trimmed,
            lagging=trimmer.backlog.lagging,
            durability=self.durability,
            redis_age=None if elector.answered_at is None else boottime() - elector.answered_at,
            renew_seconds=elector.renew_seconds,
            lease_failures=elector.failures,
            loop_lag=self.watchdog.lag,
            outcomes=dict(counters.outcomes),
            frames=dict(counters.frames),
            ack_bounds=list(ACK_BOUNDS),
            ack_counts=list(counters.ack_times.counts),
            ack_seconds=counters.ack_times.total,
            leaderships=counters.leaderships,
            connects=counters.connects,
            heartbeat=counters.heartbeat.statistics(time.monotonic(), now_ms()),
            unread=trimmer.backlog.unread,
            groups_without_workers=trimmer.backlog.without_workers,
            publish_trouble=redact(self.publisher.trouble) if leads else "",
            trim_trouble=redact(trimmer.trouble) if leads else "",
            spans_lost=tracing.spans_lost(),
        )


def _age(instant: float | None) -> float | None:
    """Seconds since an instant of the monotonic clock, which is the loop's as well."""
    return None if instant is None else time.monotonic() - instant
