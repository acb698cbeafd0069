"""Puts the parts of one worker together, whatever its pool is."""

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

from bridge import redaction, telemetry
from bridge.redis_client import sync_client
from bridge.streams import Keys
from bridge.topology import parse
from workers import poison
from workers.batches import Batches
from workers.beginning import Beginning, moment
from workers.bridges import Bridges
from workers.business import BusinessKeys
from workers.claimer import Claimer
from workers.claims import Run
from workers.consumer import Consumer
from workers.group_watch import GroupWatch
from workers.guard import Guard
from workers.handover import Dispatcher
from workers.held import Held
from workers.intake import Intake
from workers.keeper import Keeper
from workers.limits import Limits
from workers.mending import StreamMending
from workers.ordering import Ordering
from workers.outages import Outages
from workers.pending_list import PendingList
from workers.reader import StreamReader
from workers.redis_clock import RedisClock
from workers.selection import Selection, Share
from workers.settler import Settler
from workers.spans import IntakeSpans
from workers.spoilt import SpoiltKeys
from workers.stalls import Stalls
from workers.unhandled import Unhandled
from workers.waiting import Waiting

if TYPE_CHECKING:
    from bridge.settings import WorkerSettings
    from handlers.registry import Registry
    from workers.port import Pool
    from workers.routing import Routing


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
    isolation: poison.Isolation
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
        """Settle what ended, leave the groups, export the spans, close the connections."""
        self.intake.close()
        self.spans.close()
        self.isolation.close()
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
            "spans_lost": self.spans.lost + telemetry.spans_lost(),
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

    unhandled = Unhandled(registry, reader.presence, settings.group, settings.unhandled_after)
    watch = GroupWatch(settings.group)
    bridges = Bridges(once, keys, str(parse(settings.redis_url)))
    selection = Selection(
        reader, keys, settings.group, registry, routing, share, unhandled, watch, bridges
    )
    lease, complete = settings.event_lease, Event()
    pending = PendingList(consumer, lease)
    waiting = waiting_for(routing, pool)
    held = Held(waiting)
    outages = Outages(reader, disconnect, complete)
    settler = Settler(guard, held, outages, spans, waiting, pool.wake, complete)
    claimer = Claimer(guard, pending, held, waiting, settler, unhandled, spans, lease, pool.wake)
    keeper = Keeper(reader, pending, guard, clock, held, waiting, outages, claimer, lease)
    intake = Intake(
        selection.streams, reader, pending, claimer, waiting, held, keeper, settler, outages, died
    )
    isolate = partial(poison.isolate, client, keys, settings.group)
    isolation = poison.Isolation(isolate, pool.wake)
    dispatcher = Dispatcher(routing, pool, waiting, held, settler, spans.context, isolation)
    return Assembly(
        intake, dispatcher, waiting, held, claimer, settler, consumer.stalls, spans, isolation,
        (client, once),
    )  # fmt: skip


def waiting_for(routing: Routing, pool: Pool) -> Waiting:
    """Where claimed events wait for a pool."""

    def most(run: Run) -> int:
        return routing.max_attempts_of(routing.task_of(run.pending.entry.event_type))

    return Waiting(
        routing.task_of,
        Limits(routing.task_of, routing.concurrency_of, pool.bucket_of),
        Batches(routing.task_of, routing.batch_of),
        lambda run: poison.is_suspect(run, most(run), shares_process=pool.shares_process),
        lambda run: poison.patience(run, most(run)),
    )
