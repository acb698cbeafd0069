"""Which streams a worker reads, and what it tells its group before."""

from __future__ import annotations

from typing import Any

import pytest

from flybridge.handlers.registry import Registry
from flybridge.workers.group.bridges import Bridges
from flybridge.workers.group.group_watch import GroupWatch
from flybridge.workers.group.unhandled import Unhandled
from flybridge.workers.intake.selection import Selection, Share
from flybridge.workers.routes.routing import Routing

MESSAGE, CREATED = "im.message.receive_v1", "contact.user.created_v3"


@pytest.fixture
def select(redis, keys, worker) -> Any:
    """Selects for a worker of these queues with a handler of messages."""

    def select(*queues: str, after: float = 60.0) -> list[str]:
        registry = Registry()
        registry.register(lambda event, context: None, MESSAGE, name="H")
        routing = Routing.of(registry)
        unhandled = Unhandled(registry, worker.reader.presence, "workers", after)
        share = Share(lambda: queues, lambda queue: queue in queues)
        watch, bridges = GroupWatch("workers"), Bridges(redis, keys, "here")
        selection = Selection(
            worker.reader, keys, "workers", registry, routing, share, unhandled, watch, bridges
        )
        return selection.streams()

    return select


def test_types_of_its_queues_that_it_has_a_handler_for(keys, publish, select):
    publish("ev1", event_type=CREATED)
    assert select("im", "contact") == [keys.stream(MESSAGE)]
    assert select("contact") == []


def test_types_that_nobody_has_a_handler_for_once_they_have_waited(keys, publish, select):
    publish("ev1", event_type=CREATED)
    assert set(select("im", "contact", after=0)) == {keys.stream(MESSAGE), keys.stream(CREATED)}
    assert select("im", after=0) == [keys.stream(MESSAGE)]


def test_what_was_replayed_likewise(redis, keys, select):
    redis.sadd(keys.replays("workers"), MESSAGE, CREATED)
    assert set(select("im", "contact")) == {keys.stream(MESSAGE), keys.replay("workers", MESSAGE)}


def test_what_it_handles_is_known_before_it_reads(worker, select):
    select("im")
    (seen,) = worker.reader.presence.sightings
    assert seen.coverage.handlers_of(MESSAGE) == {"H"}
