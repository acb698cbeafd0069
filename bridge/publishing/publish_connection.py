"""One Redis connection of the publisher, and the batch that is on its way over it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError, TimeoutError

from flybridge.bridge.publishing.durability import Durability
from flybridge.bridge.publishing.results import Done, Refusal
from flybridge.bridge.store.raw_pipeline import RawPipeline, pack

REPLY_TIMEOUT = 1.0
"""Seconds for a batch's replies, without durability, so that a hung connection leaves time for
another."""

MIN_REPLY_TIMEOUT = 0.25
"""Seconds at least, since a late batch would otherwise time out again and again."""


@dataclass(slots=True)
class QueuedEntry:
    """An entry on its way to Redis, neither published nor refused yet."""

    command: bytes
    done: Done
    deadline: float
    trouble: Refusal = "timeout"
    """Why it is not published yet."""
    error: RedisError = field(default_factory=lambda: TimeoutError("no answer from Redis in time"))
    """The same, as Redis said it."""


class PublishConnection:
    """Sends one batch at a time over its connection.

    Args:
        pool: only its connection settings are used.
        scripts: loaded on each new connection.
    """

    def __init__(
        self, pool: ConnectionPool, scripts: Sequence[str], durability: Durability
    ) -> None:
        self.scripts = "".join(scripts)
        self.batch: list[QueuedEntry] = []
        """What `send` sends; it stays here until it is taken, when its answers are there."""
        self.task: asyncio.Task[None] | None = None
        """The task that sends now."""
        self._pipe = RawPipeline(pool, [pack("SCRIPT", "LOAD", script) for script in scripts])
        self._durability = durability

    def take_batch(self) -> list[QueuedEntry]:
        """Take the batch out of the connection."""
        batch, self.batch = self.batch, []
        return batch

    async def send(self, left: float) -> list[Any]:
        """Send the batch, whose oldest entry has `left` seconds; returns one answer each."""
        left = max(MIN_REPLY_TIMEOUT, left)
        patience = min(REPLY_TIMEOUT, left)
        commands = [waiting.command for waiting in self.batch]
        if not self._durability.command:
            return await self._pipe.send(commands, patience)
        commands.append(self._durability.wait(left))
        more = left + MIN_REPLY_TIMEOUT - patience
        *answers, last = await self._pipe.send(commands, patience, last=more)
        error = self._durability.judge(last)
        if error is None:
            return answers
        return [answer if is_final(answer) else error for answer in answers]

    async def close(self) -> None:
        """Close the connection; the next `send` opens another."""
        await self._pipe.close()


def is_final(answer: Any) -> bool:
    """Whether the answer holds whatever the durability, since nothing was written."""
    return isinstance(answer, RedisError) or is_fenced(answer) or finds_no_room(answer)


def is_fenced(answer: Any) -> bool:
    """Whether the script refused because of the term."""
    return isinstance(answer, list) and answer[0] == b"fenced"


def finds_no_room(answer: Any) -> bool:
    """Whether the script refused a dead letter, since there are as many as allowed."""
    return isinstance(answer, list) and answer[0] == b"letters_full"
