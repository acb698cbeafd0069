"""Puts the parts of one worker together, whatever its pool is.

The way of an event: `Intake` reads it, with `StreamReader` or `PendingList`; `Claimer` claims it;
it waits in `Waiting` until `Dispatcher` gives it to the pool; the outcome goes to `Settler`, which
has `Guard` record it. `Keeper` renews the claim meanwhile.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import redis
from redis.exceptions import RedisError

from flybridge.bridge.store.client import sync_client
from flybridge.bridge.store.spoilt_keys import SpoiltKeys
from flybridge.bridge.store.streams import Keys
from flybridge.bridge.store.topology import parse
from flybridge.bridge.telemetry import redaction, tracing
from flybridge.workers.backlog import quarantine
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.redis_clock import RedisClock
from flybridge.workers.claim.stalls import Stalls
from flybridge.workers.dispatch.dispatcher import Dispatcher
from flybridge.workers.group.beginning import Beginning, moment
from flybridge.workers.group.bridges import Bridges
from flybridge.workers.group.group_watch import GroupWatch
from flybridge.workers.group.unhandled import Unhandled
from flybridge.workers.intake.claimer import Claimer
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.held import Held
from flybridge.workers.intake.intake import Intake
from flybridge.workers.intake.keeper import Keeper
from flybridge.workers.intake.mending import StreamMending
from flybridge.workers.intake.outages import Outages
from flybridge.workers.intake.pending_list import PendingList
from flybridge.workers.intake.reader import StreamReader
from flybridge.workers.intake.selection import Selection, Share
from flybridge.workers.intake.settler import Settler
from flybridge.workers.intake.spans import IntakeSpans
from flybridge.workers.routes.business_keys import BusinessKeys
from flybridge.workers.routes.ordering import Ordering

if TYPE_CHECKING:
    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.handlers.registry import Registry
    from flybridge.workers.dispatch.pool_protocol import Pool
    from flybridge.workers.routes.routing import Routing


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one worker that its owner deals with."""

    intake: Intake
    dispatcher: Dispatcher
    waiting: Waiting
    held: Held
    claimer: Claimer
    settler: Settler
    stalls: Stalls
    spans: IntakeSpans
    isolation: quarantine.Isolation
    clients: tuple[redis.Redis, ...]

    def start(self, begun: Callable[[], None]) -> None:
        """Take up the streams; see `Intake.start`."""
        self.intake.start(begun, self.dispatcher.relieve)

    def abandon(self, most: float) -> None:
        """Give back all that has not ended, in so many seconds; the process ends next. Callable
        from any thread."""
        self.dispatcher.abandon()
        self.intake.abandon(most)

    def close(self) -> None:
        """Settle what ended, leave the groups, export the spans."""
        self.intake.close()
        self.spans.close()
        self.isolation.close()

    def disconnect(self) -> None:
        """Close the connections to Redis, for a process that goes on after `close`."""
        for client in self.clients:
            client.close()

    def counts(self) -> dict[str, int]:
        """What operators ask for."""
        return {
            "held": len(self.held),
            "parked": self.waiting.limits.parked,
            "requests": self.dispatcher.requests,
            "settled": self.settler.settled,
            "duplicates": self.claimer.duplicates,
            "skipped": self.claimer.skipped,
            "stalled": self.stalls.count,
            "spans_lost": self.spans.lost + tracing.spans_lost(),
            "unhandled": self.claimer.unhandled,
        }


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
    pool: Pool,
    name: str,
    died: Callable[[], None],
    started: int | None,
) -> Assembly:
    """Put one worker together; nothing is started."""
    redaction.keep_secret(settings.secrets)
    keys, group, lease = Keys(settings.app_id), settings.group, settings.event_lease
    client = sync_client(settings.redis_url, app_id=settings.app_id)
    # A read whose answer was lost must not be repeated unseen: the first one took entries.
    once = sync_client(settings.redis_url, app_id=settings.app_id, retries=0)
    spoilt = SpoiltKeys(client)
    consumer = Consumer(once, keys, group, name, Ordering(registry), spoilt)
    beginning = Beginning(client, keys, group, settings.start_from, started)
    reader = StreamReader(consumer, lease, settings.retention, beginning)
    clock = RedisClock(client, keys, group, StreamMending(consumer, lease), spoilt)
    guard = Guard(
        client,
        keys,
        group,
        lease,
        name,
        retention=settings.retention,
        business=BusinessKeys(registry, keys, group),
        spoilt=spoilt,
        unhandled_limit=settings.unhandled_limit,
        clock=clock,
        stalls=consumer.stalls,
    )
    spans = IntakeSpans(tracing.span_exporter(), tracing.resource(tracing.WORKER), group)

    def disconnect() -> None:
        for each in (client, once):
            each.connection_pool.disconnect(inuse_connections=False)

    unhandled = Unhandled(registry, reader.presence, group, settings.unhandled_after)
    watch, bridges = GroupWatch(group), Bridges(once, keys, str(parse(settings.redis_url)))
    selection = Selection(reader, keys, group, registry, routing, share, unhandled, watch, bridges)
    complete = Event()
    pending = PendingList(consumer, lease)
    waiting = Waiting(routing, pool)
    held = Held(waiting)
    outages = Outages(reader, disconnect, complete)
    settler = Settler(guard, held, outages, spans, waiting, pool.wake, complete)
    claimer = Claimer(guard, pending, held, waiting, settler, unhandled, spans, lease, pool.wake)
    keeper = Keeper(reader, pending, guard, clock, held, waiting, outages, claimer, lease)
    intake = Intake(
        selection, reader, pending, claimer, waiting, held, keeper, settler, outages, died
    )
    isolate = partial(quarantine.isolate, client, keys, group)
    isolation = quarantine.Isolation(isolate, pool.wake)
    dispatcher = Dispatcher(routing, pool, waiting, held, settler, spans, isolation)
    return Assembly(
        intake, dispatcher, waiting, held, claimer, settler, consumer.stalls, spans, isolation,
        (client, once),
    )  # fmt: skip
