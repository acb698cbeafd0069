"""Puts an intake together: Redis clients, reader, guard, spans. The same for every kind of worker.

It starts nothing, and what runs the events is given to it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import redis
from redis.exceptions import RedisError

from bridge import redaction, telemetry
from bridge.redis_client import sync_client
from bridge.streams import Keys
from bridge.topology import parse
from workers import poison
from workers.beginning import Beginning, moment
from workers.bridges import Bridges
from workers.business import BusinessKeys
from workers.claims import Run
from workers.consumer import Consumer
from workers.group_watch import GroupWatch
from workers.guard import Guard
from workers.intake import Intake
from workers.mending import StreamMending
from workers.ordering import Ordering
from workers.pending_list import PendingList
from workers.reader import StreamReader
from workers.redis_clock import RedisClock
from workers.selection import Selection, Share
from workers.spans import IntakeSpans
from workers.spoilt import SpoiltKeys
from workers.unhandled import Unhandled

if TYPE_CHECKING:
    from bridge.settings import WorkerSettings
    from handlers.registry import Registry
    from workers.handover import HandOver
    from workers.routing import Routing


@dataclass(frozen=True, slots=True)
class Assembly:
    """An intake that has not started, and what its pool needs besides."""

    intake: Intake
    trace: Callable[[Run], str]
    """Gives the traceparent of an event."""
    isolate: Callable[[Run], int]
    """See `poison.isolate`; it waits for Redis."""
    clients: tuple[redis.Redis, ...]

    def close(self) -> None:
        """Close the connections to Redis, when the intake is closed."""
        for client in self.clients:
            client.close()


def consumer_name(worker: str) -> str:
    """What a worker is called in Redis: new at every start, so that no two share a name."""
    return f"{worker}.{os.getpid()}.{secrets.token_hex(4)}"


def started(settings: WorkerSettings) -> int | None:
    """The moment from which on what is published is for this worker's group, even for a new one.

    It waits for Redis; None while that is away.
    """
    with closing(sync_client(settings.redis_url, app_id=settings.app_id)) as client:
        try:
            return moment(client)
        except (RedisError, OSError):
            return None


def assemble(
    settings: WorkerSettings,
    registry: Registry,
    routing: Routing,
    share: Share,
    pool: HandOver,
    name: str,
    died: Callable[[], None],
    started: int | None,
) -> Assembly:
    """Make the intake of one worker.

    Args:
        settings: of the worker.
        registry: its handlers.
        routing: their routes.
        share: what it reads.
        pool: takes what was claimed.
        name: see `consumer_name`.
        died: see `Intake`.
        started: see `started`.
    """
    redaction.keep_secret(settings.secrets)
    keys = Keys(settings.app_id)
    client = sync_client(settings.redis_url, app_id=settings.app_id)
    # A read whose answer was lost must not be repeated unseen: the first one took entries.
    once = sync_client(settings.redis_url, app_id=settings.app_id, retries=0)
    spoilt = SpoiltKeys(client)
    ordering = Ordering(registry)
    consumer = Consumer(once, keys, settings.group, name, ordering.of, spoilt, ordering.missed)
    beginning = Beginning(client, keys, settings.group, settings.start_from, started)
    reader = StreamReader(consumer, settings.event_lease, settings.retention, beginning)
    clock = RedisClock(
        client, keys, settings.group, StreamMending(consumer, settings.event_lease), spoilt
    )
    guard = Guard(
        client,
        keys,
        settings.group,
        settings.event_lease,
        name,
        retention=settings.retention,
        business=BusinessKeys(registry, keys, settings.group).of,
        spoilt=spoilt,
        unhandled_limit=settings.unhandled_limit,
        clock=clock,
        stalls=consumer.stalls,
    )
    spans = IntakeSpans(
        telemetry.span_exporter(), telemetry.resource(telemetry.WORKER), settings.group
    )

    def disconnect() -> None:
        for each in (client, once):
            each.connection_pool.disconnect(inuse_connections=False)

    watch = GroupWatch(settings.group)
    bridges = Bridges(once, keys, str(parse(settings.redis_url)))
    unhandled = Unhandled(
        registry, reader.sightings, reader.look, settings.group, settings.unhandled_after
    )
    intake = Intake(
        reader,
        PendingList(consumer, settings.event_lease),
        guard,
        clock,
        Selection(
            reader, keys, settings.group, registry, routing, share, unhandled, watch, bridges
        ).streams,
        settings.event_lease,
        pool.waiting,
        pool.ring,
        spans,
        died,
        disconnect,
        unhandled,
        pool.relieve,
    )
    isolate = partial(poison.isolate, client, keys, settings.group)
    return Assembly(intake, spans.context, isolate, (client, once))
