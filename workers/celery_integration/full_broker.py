"""A kombu channel that starts, and answers commands, on a Redis that is at its maxmemory.

A worker must be able to start there, for it is the one who makes room. At maxmemory Redis refuses
every command that may take memory, and all that stands in a transaction.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis.exceptions import OutOfMemoryError

from flybridge.bridge.store.scripts import load

ANSWERS = ".pidbox"
"""How queues end that carry answers to control commands; messages of tasks wait for room."""


class FullQoS(kombu_redis.QoS):
    """kombu's memory of messages in work: what is to be put back waits for room."""

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Put messages back whose workers are gone; it is tried again soon."""
        with suppress(OutOfMemoryError):
            super().restore_visible(*args, **options)


class FullChannel(kombu_redis.Channel):
    """kombu's channel, which carries out a few needed commands at maxmemory too."""

    QoS = FullQoS

    def _size(self, queue: str) -> int:
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            for priority in self.priority_steps:
                pipeline.llen(self._q_for_pri(queue, priority))
            return sum(int(size) for size in pipeline.execute())

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError:
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            self._write_when_full("SADD", self.keyprefix_queue % (exchange,), member)

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        try:
            super()._put(queue, message, **options)
        except OutOfMemoryError:
            if not queue.endswith(ANSWERS):
                raise
            priority = self._get_message_priority(message, reverse=False)
            self._write_when_full("LPUSH", self._q_for_pri(queue, priority), dumps(message))

    def maybe_refresh_binding_expiry(self) -> None:
        """Keep the answers' queues known; it is tried again soon."""
        with suppress(OutOfMemoryError):
            super().maybe_refresh_binding_expiry()

    def _delete(self, queue: str, *args: Any, **options: Any) -> None:
        try:
            super()._delete(queue, *args, **options)
        except OutOfMemoryError:
            with self.conn_or_acquire() as client:
                client.delete(*(self._q_for_pri(queue, step) for step in self.priority_steps))

    def _write_when_full(self, command: str, key: str, *arguments: Any) -> None:
        with self.conn_or_acquire() as client:
            script = client.register_script(load("write_when_full").text)
            script(keys=[key], args=[command, *arguments])
