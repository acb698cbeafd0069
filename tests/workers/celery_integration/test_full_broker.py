"""What Celery's broker takes from a worker where Redis is at its maxmemory, and what not."""

from __future__ import annotations

from collections.abc import Iterator

import kombu
import pytest
from kombu import Exchange, Queue
from redis import Redis
from redis.exceptions import OutOfMemoryError

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.topology import parse
from flybridge.workers.celery_integration import broker

EXCHANGE = Exchange("reply.celery.pidbox", type="direct")
ANSWERS = Queue("x.reply.celery.pidbox", EXCHANGE, routing_key="x", expires=10, auto_delete=True)


@pytest.fixture
def full() -> Iterator[kombu.Connection]:
    """A connection to a Redis without room."""
    with EmbeddedRedis() as server, Redis.from_url(server.url) as redis:
        options = {"server": broker.Server(parse(server.url), "cli_test"), "global_keyprefix": "k:"}
        name = f"{broker.__name__}:{broker.Transport.__name__}"
        redis.config_set("maxmemory", 1)
        with kombu.Connection(server.url, transport=name, transport_options=options) as made:
            yield made
        redis.config_set("maxmemory", 0)
        assert not [key for key in redis.scan_iter() if not key.startswith(b"k:")]


def test_answers_to_control_commands_come_through(full: kombu.Connection) -> None:
    channel = full.channel()
    queue = ANSWERS(channel)
    queue.declare()
    full.Producer(channel).publish({"ok": 1}, exchange=EXCHANGE, routing_key="x")

    answer = queue.get(no_ack=True)

    assert answer is not None
    assert answer.payload == {"ok": 1}
    channel.maybe_refresh_binding_expiry()
    channel.qos.restore_visible()
    queue.delete()


def test_messages_of_tasks_wait_for_room(full: kombu.Connection) -> None:
    channel = full.channel()
    Queue("tasks", Exchange("tasks"), routing_key="tasks")(channel).declare()
    with pytest.raises(OutOfMemoryError):
        full.Producer(channel).publish("x", exchange="tasks", routing_key="tasks")
