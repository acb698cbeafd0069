"""Celery's broker settings, and what we work around in kombu."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu import Queue
from kombu.asynchronous import Hub
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis import Redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ReadOnlyError
from structlog.testing import capture_logs

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.errors import SettingsInvalid
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.failover import FollowingConnection, FollowingTlsConnection
from flybridge.bridge.store.streams import Keys
from flybridge.bridge.store.topology import parse
from flybridge.workers.celery_integration import broker

TRANSPORT = f"{broker.__name__}:{broker.Transport.__name__}"


def configuration(**settings: Any) -> dict[str, Any]:
    return broker.configuration(WorkerSettings(app_id="cli_test", **settings))


def connection(**settings: Any) -> kombu.Connection:
    """As Celery makes it of our settings."""
    app = Celery("contract", set_as_current=False)
    app.conf.update(configuration(**settings))
    return app.connection_for_read()


def test_the_broker_is_the_redis_of_the_streams_unless_it_is_given() -> None:
    assert configuration(redis_url="redis://h:1/2")["broker_url"] == "redis://h:1/2"
    given = configuration(redis_url="redis+cluster://h", broker_url="redis://other")
    assert given["broker_url"] == "redis://other:6379/0"
    assert given["broker_transport"] == TRANSPORT


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:hush%40@h/2", "redis://h:6379/2"),
        ("rediss://h:1?password=hush%40&username=u&db=2", "rediss://h:1/2"),
        ("redis+sentinel://u:hush%40@h/m?sentinel_password=hush%40", "sentinel m via h:26379"),
        ("unix://u@/run/redis.sock?password=hush%40&db=2", "unix:///run/redis.sock"),
    ],
)
def test_celery_is_told_no_secret(url: str, shown: str) -> None:
    """It shows the URL in its banner and its log, and answers `inspect stats` with all of it."""
    for made in (connection(redis_url=url), connection(redis_url=url).clone()):
        answer = dumps({"broker": made.info(), "options": made.transport_options})
        assert made.as_uri(include_password=True) == shown
        assert shown in answer
        assert "hush" not in answer + repr(made)
    given = kombu.Connection("redis://:hush@h", transport=TRANSPORT)
    assert given.as_uri(include_password=True) == "redis://[redacted]@h"


def test_a_cluster_needs_a_broker_of_its_own() -> None:
    with pytest.raises(SettingsInvalid, match="FLYBRIDGE_BROKER_URL is not set"):
        configuration(redis_url="redis+cluster://h")


def test_a_worker_may_do_without_a_broker() -> None:
    made = connection(redis_url="redis+cluster://h", broker_url="memory://")

    assert made.transport_cls == f"{broker.__name__}:{broker.NoTransport.__name__}"
    assert made.transport.implements.asynchronous


@pytest.fixture
def no_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu_redis.PrefixedStrictRedis, "ping", lambda self: True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Connection),
        ("rediss://h", SSLConnection),
        ("unix:///run/redis.sock", UnixDomainSocketConnection),
        ("redis+sentinel://h/m", FollowingConnection),
        ("rediss+sentinel://h/m", FollowingTlsConnection),
    ],
)
def test_kombus_pools_are_made_of_connections_like_those_of_the_streams(
    url: str, expected: type, no_ping: None
) -> None:
    with connection(redis_url=url).channel() as channel:
        for pool in (channel.pool, channel.async_pool):
            made = pool.make_connection()
            assert isinstance(made, expected)
            assert made.socket_timeout == 5
            assert getattr(made, "cert_reqs", ssl.CERT_REQUIRED) == ssl.CERT_REQUIRED
            assert isinstance(made, FollowingConnection) == ("primary" in pool.connection_kwargs)


def test_kombu_takes_all_that_a_url_says(no_ping: None) -> None:
    options = (
        "db=2&password=p%40&client_name=fly&socket_timeout=3&health_check_interval=7&username=u"
    )
    for url in ("redis://:p%40@h/0", "unix:///run/redis.sock"):
        with connection(redis_url=f"{url}?{options}").channel() as channel:
            made = channel.pool.make_connection()

        assert (made.db, made.client_name, made.username, made.password) == (2, "fly", "u", "p@")
        assert (made.socket_timeout, made.health_check_interval) == (3, 7)


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


def orphan(made: kombu.Connection) -> Any:
    """A channel with an unacknowledged message, whose connection was closed before it."""
    channel = made.channel()
    queue = Queue("q", routing_key="q")(channel)
    queue.declare()
    made.Producer(channel).publish("x", routing_key="q", exchange="")
    assert queue.get() is not None
    # As `kombu.Connection._do_close_transport` does.
    made.transport.client = None
    return channel


def test_kombu_still_ends_the_worker_when_a_channel_outlives_its_connection(
    server: EmbeddedRedis,
) -> None:
    channel = orphan(kombu.Connection(server.url))

    with pytest.raises(AttributeError, match="hostname"):
        channel.close()


def test_our_channel_may_outlive_its_connection(server: EmbeddedRedis) -> None:
    channel = orphan(ours(server))

    channel.close()

    assert channel.closed


def ours(server: EmbeddedRedis) -> kombu.Connection:
    options = {"server": broker.Server(parse(server.url), "cli_test")}
    return kombu.Connection(server.url, transport=TRANSPORT, transport_options=options)


def sockets(server: EmbeddedRedis, make: Callable[[], kombu.Connection]) -> int:
    """Connections left after three tries to hang a connection onto a loop were refused."""
    with Redis.from_url(server.url) as redis:
        before = len(redis.client_list())
        made = [make() for _ in range(3)]
        redis.replicaof("127.0.0.1", 1)
        try:
            for each in made:
                with pytest.raises(ReadOnlyError):
                    each.transport.register_with_event_loop(each.connection, Hub())
        finally:
            redis.replicaof("NO", "ONE")
        return len(redis.client_list()) - before


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PAUSE", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_a_refused_registration_leaves_no_socket_though_kombu_still_does(
    server: EmbeddedRedis,
) -> None:
    assert sockets(server, lambda: kombu.Connection(server.url)) > 0
    assert sockets(server, lambda: ours(server)) == 0


def test_a_key_that_is_no_list_keeps_no_other_queue_from_being_read(
    server: EmbeddedRedis,
) -> None:
    made = connection(redis_url=server.url)
    made.transport_options["wants_messages"] = lambda: True
    got: list[Any] = []

    def take(message: Any) -> None:
        got.append(message.payload)
        message.ack()

    with Redis.from_url(server.url) as redis, capture_logs() as lines:
        prefix = f"{Keys('cli_test').prefix}:celery:"
        redis.set(f"{prefix}before", "x")
        queues = [Queue(name, routing_key=name) for name in ("before", "later", "good")]
        with made.channel() as channel, made.Consumer(queues, on_message=take, channel=channel):
            redis.set(f"{prefix}later", "x")
            producer = made.Producer(channel)
            for body in ("one", "two"):
                producer.publish(body, routing_key="good", exchange="")
            while len(got) < 2:
                made.drain_events(timeout=5)
            assert channel.unread(["before", "later"]) == {}
    assert got == ["one", "two"]
    assert [each["event"] for each in lines] == ["broker.list_spoilt"] * 2
