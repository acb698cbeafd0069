"""Celery's broker: carries `celery inspect`, `celery control` and users' own tasks, but no event.

It is kombu's Redis transport over the bridge's own connections, which find the primary by
themselves and take all options of a URL. kombu's Sentinel transport is not used: it asks a dead
Sentinel first each time, and a retry inside redis-py goes to the old address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from queue import Empty
from typing import Any

from kombu.transport import memory as kombu_memory
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis.exceptions import DataError, RedisError, ResponseError

from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.config.types import NO_BROKER
from flybridge.bridge.errors import SettingsInvalid
from flybridge.bridge.store.client import connection_class
from flybridge.bridge.store.failover import Primary
from flybridge.bridge.store.redis_rights import cure, is_denied
from flybridge.bridge.store.streams import Keys
from flybridge.bridge.store.topology import Topology, parse
from flybridge.bridge.telemetry.redaction import redact
from flybridge.handlers.loggers import get_logger
from flybridge.workers.celery_integration.full_broker import FullChannel, FullQoS
from flybridge.workers.celery_integration.stray import refusals

_OPTIONS: Mapping[str, Any] = {
    "visibility_timeout": 3600,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "health_check_interval": 25,
}
_LIMITS: Mapping[str, Any] = {
    # kombu asks on the worker's event loop: on a dead connection nothing else is done so long.
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
    "health_check_interval": 25,
}
log = get_logger(__name__)

REDIS_FAILS = (RedisError, OSError)
"""Errors of Redis or the network, not of a message; kombu reconnects."""

_told_of: set[str] = set()
"""Queues with spoilt lists, and missing rights, that this process has logged; each loss of the
broker makes a channel."""

PAUSE = 1.0
"""Seconds before Celery asks a Redis again that refused to write."""

_NO_CLUSTER = (
    f"{PREFIX}BROKER_URL is not set, and Celery's control commands cannot use the Cluster of "
    f"{PREFIX}REDIS_URL; give the URL of another Redis, like redis://127.0.0.1:6379/0, or "
    f"{NO_BROKER} to do without them (no event passes through it)."
)


class Server:
    """The Redis that channels connect to. It shows only its address, for Celery prints and sends
    its options.
    """

    def __init__(self, topology: Topology, app_id: str) -> None:
        self.connection_class = connection_class(topology)
        self.arguments: dict[str, Any] = {**_LIMITS, **topology.arguments}
        if not topology.socket:
            self.arguments.setdefault("socket_keepalive", True)
        if topology.kind == "sentinel":
            self.arguments["primary"] = Primary(topology, app_id)
        self._shown = str(topology)

    def __repr__(self) -> str:
        return self._shown

    __json__ = __repr__
    """What kombu sends of it, in answers to `inspect stats`."""


class QoS(FullQoS):
    """kombu's memory of messages in work; an unreadable message does not jam it."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back whose worker is gone."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except REDIS_FAILS:
            raise
        except Exception as error:
            refusals.tell(error, "unacked")
            self._remove_from_indices(tag).execute()


class Channel(FullChannel):
    """kombu's channel over the bridge's connections. It rejects messages that cannot be used,
    closes cleanly after a lost connection, and counts the receivers of a broadcast."""

    QoS = QoS
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "server",
        "wants_messages",
    )
    server: Server
    wants_messages: Callable[[], bool] | None = None
    """Whether there are tasks to read the queues' lists for; None: this is not a worker's."""

    heard_by = 0
    """How many workers the last broadcast has reached."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._spoilt: set[str] = set()
        super().__init__(*args, **options)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """What its connections are made with: nothing that kombu reads from a URL, which knows
        less than ours."""
        self.connection_class = self.connection_class_ssl = self.server.connection_class
        made = super()._connparams(asynchronous)
        kept = {name: made[name] for name in ("connection_class", "max_connections")}
        return {**self.server.arguments, **kept}

    @property
    def active_queues(self) -> set[str]:
        """The queues whose lists are read."""
        if self.wants_messages is None or self.wants_messages():
            return set(super().active_queues) - self._spoilt
        # The queues of answers, for a handler may send control commands, too.
        asked = self.auto_delete_queues - self.active_fanout_queues
        return {queue for queue in asked if queue in self._active_queues}

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], *args: Any, **options: Any
    ) -> Any:
        """Consume; in a worker, a message that `callback` fails by is rejected."""
        if self.wants_messages is None:
            return super().basic_consume(queue, no_ack, callback, *args, **options)

        def bear(message: Any) -> None:
            try:
                callback(message)
            except REDIS_FAILS:
                raise
            except Exception as error:
                refusals.tell(error, queue, message)
                if not no_ack and not message.acknowledged:
                    message.reject()

        return super().basic_consume(queue, no_ack, bear, *args, **options)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except ResponseError as error:
            if not _is_of_wrong_type(error):
                raise
            for queue in set(super().active_queues):
                self._size(queue)
            self._update_queue_cycle()
            raise Empty from error
        except (Empty, *REDIS_FAILS):
            raise
        except Exception as error:
            if self.wants_messages is None:
                raise
            # The message is out of its list by now.
            refusals.tell(error, "")
            raise Empty from error

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except ResponseError as error:
            if not is_denied(error):
                raise
            # Celery would take it for a lost connection, and connect anew without end.
            self._tell_denied(error)
            return None

    def _tell_denied(self, error: ResponseError) -> None:
        """Log once in this process that no control commands come, and which right they need."""
        rule = self._rule_for_channels() if "channel" in str(error) else cure(error)
        if rule not in _told_of:
            _told_of.add(rule)
            hint = f"control commands do not reach this worker; {rule}; then restart it"
            log.warning("redis.denied", error=str(error), cure=hint)

    def _rule_for_channels(self) -> str:
        queues = sorted(self.active_fanout_queues)
        topics = [topic for queue in queues for topic in self._get_subscribe_topics(queue)]
        wanted = " ".join(f"&{self.global_keyprefix}{topic}" for topic in topics)
        return f"allow this user its channels: ACL SETUSER <user> {wanted}"

    def unread(self, queues: Iterable[str]) -> dict[str, int]:
        """How many messages wait for these queues in lists that are not read."""
        names = [queue for queue in queues if queue not in self.active_queues]
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            for name in names:
                for priority in self.priority_steps:
                    pipeline.llen(self._q_for_pri(name, priority))
            answers = pipeline.execute(raise_on_error=False) if names else []
        # Where the key is no list, it is an error.
        sizes = iter([answer if isinstance(answer, int) else 0 for answer in answers])
        waiting = {name: sum(islice(sizes, len(self.priority_steps))) for name in names}
        return {name: size for name, size in waiting.items() if size}

    def _size(self, queue: str) -> int:
        try:
            size: int = super()._size(queue)
        except ResponseError as error:
            if not _is_of_wrong_type(error):
                raise
            self._leave_out(queue)
            return 0
        return size

    def _leave_out(self, queue: str) -> None:
        """Read a queue no more whose key is no list: for all of them Redis would answer that."""
        if queue in self._spoilt:
            return
        self._spoilt.add(queue)
        if queue not in _told_of:
            _told_of.add(queue)
            key = f"{self.global_keyprefix}{queue}"
            hint = "its messages are not read; delete the key, and restart the workers"
            log.error("broker.list_spoilt", queue=queue, key=key, hint=hint)

    def _update_queue_cycle(self) -> None:
        # All of them, for a handler module that comes later may bring tasks.
        self._queue_cycle.update(set(super().active_queues) - self._spoilt)

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **options: Any) -> None:
        if options.get("_publish_batch") is not None:
            super()._put_fanout(exchange, message, routing_key, **options)
            return
        # As kombu 5.7.0 does, which drops what Redis answers.
        payload = dumps(message)
        with self.conn_or_acquire() as client:
            self.heard_by = sum(
                client.publish(topic, payload)
                for topic in self._get_publish_topics(exchange, routing_key)
            )

    def close(self) -> None:
        """Close; what was not acknowledged stays with Redis when the connection went before.

        kombu 5.7.0 would restore it, fail with "'NoneType' object has no attribute 'hostname'",
        which Celery does not expect, and the worker would end.
        """
        if self.connection is None or self.connection.client is None:
            self.do_restore = False
        super().close()


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with our channel; the URL that kombu is given is only shown."""

    Channel = Channel
    can_parse_url = True

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """As it may be shown; one that was given to `celery` itself may hold a password."""
        return redact(uri)

    def _deliver(self, message: Any, queue: str) -> None:
        if "wants_messages" not in self.client.transport_options:
            super()._deliver(message, queue)
            return
        try:
            super()._deliver(message, queue)
        except REDIS_FAILS as error:
            # redis-py has not sent it, or a key where kombu keeps messages in work is of a wrong
            # type; connecting again would not help.
            if not (isinstance(error, DataError) or _is_of_wrong_type(error)):
                raise
            refusals.tell(error, queue)
        except Exception as error:
            # Not even a message: the channel rejects those that are one.
            refusals.tell(error, queue)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have the loop read from it.

        That writes, too. Where Redis refuses it, Celery 5.7.0 forgets the connection without
        closing it and makes another at once: several sockets, and log lines, a second.
        """
        try:
            super().register_with_event_loop(connection, loop)
        except Exception:
            self.close_connection(connection)
            time.sleep(PAUSE)
            raise


class NoTransport(kombu_memory.Transport):
    """The transport of `memory://`, for a worker without control commands. It claims to be
    asynchronous although it has nothing to poll: the intake needs Celery's event loop, which Celery
    starts only for such transports."""

    implements = kombu_memory.Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        pass


def _is_of_wrong_type(error: Exception) -> bool:
    return "WRONGTYPE" in str(error)


def configuration(settings: WorkerSettings) -> dict[str, Any]:
    """Celery's settings of the broker.

    Raises:
        SettingsInvalid: there is none: the events are in a Cluster, where Celery cannot go.
    """
    if settings.broker_url == NO_BROKER:
        return {"broker_url": "memory://localhost/", "broker_transport": _name(NoTransport)}
    topology = parse(settings.broker_url or settings.redis_url)
    if topology.kind == "cluster":
        raise SettingsInvalid([_NO_CLUSTER])
    return {
        "broker_url": str(topology),
        "broker_transport": _name(Transport),
        # The name space of control commands: one group's must not reach another's workers.
        "control_exchange": f"celery.{settings.group}",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Without it an error reply of Redis (UNBLOCKED, READONLY) ends the worker.
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            **_OPTIONS,
            "global_keyprefix": f"{Keys(settings.app_id).prefix}:celery:",
            "server": Server(topology, settings.app_id),
        },
    }


def _name(transport: type) -> str:
    """The name by which kombu loads it."""
    return f"{__name__}:{transport.__name__}"
