"""Celery's broker settings, and what we work around in kombu."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Queue
from kombu.asynchronous import Hub
from kombu.transport import redis as kombu_redis
from redis import Redis
from redis.exceptions import OutOfMemoryError

from bridge.errors import SettingsInvalid
from bridge.local.valkey import EmbeddedRedis
from bridge.primary import FollowingConnection, FollowingTlsConnection, Primary
from bridge.settings import WorkerSettings
from workers import broker

TRANSPORT = f"{broker.__name__}:{broker.Transport.__name__}"
FOLLOWING = f"{broker.__name__}:{broker.FollowingTransport.__name__}"


def configuration(**settings: Any) -> dict[str, Any]:
    return broker.configuration(WorkerSettings(app_id="cli_test", **settings))


def connection(**settings: Any) -> Connection:
    """As Celery makes it of our settings."""
    app = Celery("contract", set_as_current=False)
    app.conf.update(configuration(**settings))
    return app.connection_for_read()


def test_the_broker_is_the_redis_of_the_streams_unless_it_is_given() -> None:
    assert configuration(redis_url="redis://:p@h:1/2")["broker_url"] == "redis://:p@h:1/2"
    given = configuration(redis_url="redis+cluster://h", broker_url="redis://other")
    assert given["broker_url"] == "redis://other"
    assert given["broker_transport"] == TRANSPORT


def test_a_cluster_needs_a_broker_of_its_own() -> None:
    with pytest.raises(SettingsInvalid, match="FLYBRIDGE_BROKER_URL is not set"):
        configuration(redis_url="redis+cluster://h")


def test_a_worker_may_do_without_a_broker() -> None:
    made = connection(redis_url="redis+cluster://h", broker_url="memory://")

    assert made.transport_cls == f"{broker.__name__}:{broker.NoTransport.__name__}"
    assert made.transport.implements.asynchronous


def test_tls_is_verified() -> None:
    for url in ("rediss://h", "rediss+sentinel://h/m"):
        verified = configuration(redis_url=url)["broker_use_ssl"]
        assert verified == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert configuration(redis_url="redis://h")["broker_use_ssl"] is None


def test_sentinels_are_followed_by_our_own_transport() -> None:
    made = connection(redis_url="redis+sentinel://u:p%40@h1:1,h2:2/m/3?sentinel_password=x")

    assert made.transport_cls == FOLLOWING
    assert (made.userid, made.password, made.virtual_host) == ("u", "p@", "3")
    assert isinstance(made.transport_options["primary"], Primary)
    assert made.clone().transport_cls == FOLLOWING
    assert "p@" not in repr(made.transport_options)


@pytest.fixture
def no_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu_redis.PrefixedStrictRedis, "ping", lambda self: True)


@pytest.mark.parametrize(
    ("scheme", "expected"), [("redis", FollowingConnection), ("rediss", FollowingTlsConnection)]
)
def test_kombus_pool_is_made_of_connections_that_follow(
    scheme: str, expected: type, no_ping: None
) -> None:
    with connection(redis_url=f"{scheme}+sentinel://h/m").channel() as channel:
        for pool in (channel.pool, channel.async_pool):
            assert issubclass(pool.connection_class, expected)
            assert isinstance(pool.make_connection(), expected)


def test_kombu_takes_a_unix_socket_with_its_password_and_database(no_ping: None) -> None:
    url = "unix://u@/run/redis.sock?password=p%40&db=2"
    with connection(redis_url=url).channel() as channel:
        settings = channel.pool.connection_kwargs

    assert (settings["path"], settings["db"]) == ("/run/redis.sock", 2)
    assert (settings["username"], settings["password"]) == ("u", "p@")


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


def orphan(made: Connection) -> Any:
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
    channel = orphan(Connection(server.url))

    with pytest.raises(AttributeError, match="hostname"):
        channel.close()


def test_our_channel_may_outlive_its_connection(server: EmbeddedRedis) -> None:
    primary = SimpleNamespace(find=lambda: ("127.0.0.1", server.port))
    options = {"primary": primary}
    channel = orphan(Connection(server.url, transport=FOLLOWING, transport_options=options))

    channel.close()

    assert channel.closed


def sockets(server: EmbeddedRedis, transport: str | None) -> int:
    """Connections left after three tries to hang a connection onto a loop were refused."""
    with Redis.from_url(server.url) as redis:
        before = len(redis.client_list())
        made = [Connection(server.url, transport=transport) for _ in range(3)]
        redis.config_set("maxmemory", 1)
        try:
            for each in made:
                with pytest.raises(OutOfMemoryError):
                    each.transport.register_with_event_loop(each.connection, Hub())
        finally:
            redis.config_set("maxmemory", 0)
        return len(redis.client_list()) - before


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PAUSE", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_a_refused_registration_leaves_no_socket_though_kombu_still_does(
    server: EmbeddedRedis,
) -> None:
    assert sockets(server, transport=None) > 0
    assert sockets(server, transport=TRANSPORT) == 0
