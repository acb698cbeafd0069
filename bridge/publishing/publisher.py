"""Publishes entries to their streams in batches, each entry once, within a time budget.

What is submitted while a batch is on its way forms the next one. The script is idempotent, so a
batch without an answer is sent again as long as its entries have time. While a batch waits for its
durability, others are sent over further connections.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, TimeoutError

from flybridge.bridge.errors import ErrorListener
from flybridge.bridge.process.task_watch import TaskWatch
from flybridge.bridge.publishing.admission import Admission
from flybridge.bridge.publishing.durability import NONE, Durability, Undurable
from flybridge.bridge.publishing.outage import Leadership, Outage
from flybridge.bridge.publishing.publish_connection import (
    PublishConnection,
    QueuedEntry,
    finds_no_room,
    is_fenced,
)
from flybridge.bridge.publishing.results import Done, Published, PublishRefused, Refusal
from flybridge.bridge.store.lifetimes import MARKER_TTL
from flybridge.bridge.store.raw_pipeline import pack
from flybridge.bridge.store.scripts import load
from flybridge.bridge.store.streams import BRIDGE_GROUP, MAX_TYPES, OTHER, Entry, Keys
from flybridge.handlers.loggers import get_logger

BATCH = 512
"""Entries in one pipeline at most: some 700 kB."""

BUDGET = 2.0
"""Seconds in which an entry is in Redis or refused. Feishu waits 3 s for an ack."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Bytes that may wait, some 20,000 entries. Further entries are refused at once."""

START_PERIOD = 0.1
"""Seconds until another connection is used, while those in use wait for durability."""

DEAD_LETTERS = 10_000
"""Dead letters of the bridge that are kept by default."""

DEAD_FIELD = 4_096
"""Characters kept of each field but the payload: headers can be as long as a frame."""

RETRIED = 60
"""Seconds for which a dead letter without an identity is known: it is only sent again within
`BUDGET`."""

CALM_AFTER = 60.0
"""Seconds without a refused dead letter after which the next kept one ends the shortage."""

_PAUSE = 0.1  # seconds before what failed is sent again

_PUBLISH, _KEEP_LETTER = load("publish"), load("keep_letter")
_SCRIPTS = (_PUBLISH.text, _KEEP_LETTER.text)

_ROOM = (
    "look at them with `flybridge dlq list --group bridge` and purge those you have seen, or raise "
    "FLYBRIDGE_DEAD_LETTERS; until then Feishu gets 500 for events that cannot be read, and "
    "sends each 4 times more in 7 hours"
)

log = get_logger(__name__)


class Room(Protocol):
    """Whether Redis has room for more events."""

    @property
    def full(self) -> bool: ...
    def refused(self) -> None: ...


class Publisher:
    """Publishes for one app over connections of its own.

    Args:
        redis: only its connection settings are used.
        leadership: asked before each batch, and told of one that was fenced.
        room: asked for each entry, and told when Redis refuses a batch for want of memory.
        listener: told when Redis begins to fail.
        durability: what must hold before an entry counts as published; see `durability.fit`.
        marker_ttl: seconds for which an event that comes again is known.
        dead_letters: how many of its own the bridge keeps; further ones are refused.
        budget: seconds in which an entry is published or refused.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        leadership: Leadership,
        room: Room,
        tasks: TaskWatch,
        listener: ErrorListener,
        *,
        durability: Durability = NONE,
        admission: Admission | None = None,
        marker_ttl: int = MARKER_TTL,
        dead_letters: int = DEAD_LETTERS,
        budget: float = BUDGET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting = 0
        """Entries submitted whose `done` has not been called."""
        self._keys = keys
        self._lease, self._types, self._other = keys.lease, keys.types, keys.stream(OTHER)
        self._dead = keys.dead(BRIDGE_GROUP)
        self._marker_ttl = marker_ttl
        self._dead_letters = dead_letters
        self._leadership, self._room = leadership, room
        self._tasks, self._budget = tasks, budget
        self._admission = admission or Admission()
        self._sending = 0
        self._clock = clock
        self._queue: deque[QueuedEntry] = deque()
        self._backlog = 0
        pool = redis.connection_pool
        self._connections = [
            PublishConnection(pool, _SCRIPTS, durability) for _ in range(durability.connections)
        ]
        self._idle = self._connections[::-1]
        self._paced = self._unmarked = False
        trial = PublishConnection(pool, _SCRIPTS, durability)
        self._outage = Outage(trial, leadership, tasks, listener)
        self._letters_full: float | None = None  # when last one was refused, by `clock`

    @property
    def trouble(self) -> str:
        """Why Redis refuses entries, and what to do; empty while it takes them, or is just full."""
        return self._outage.trouble

    def submit(self, entry: Entry, done: Done) -> None:
        """Publish an entry under its term. It never blocks; `done` gets the result."""
        if self._room.full:
            done(PublishRefused("full"))
            return
        stream = self._keys.stream(entry.event_type)
        name = stream.rpartition(":")[2]
        marker = self._keys.published(entry.event_id)
        keys = (self._lease, marker, self._types, stream, self._other)
        options = (entry.term, name, MAX_TYPES, self._marker_ttl)
        self._enqueue(
            pack("EVALSHA", _PUBLISH.sha, len(keys), *keys, *options, *entry.fields()), done
        )

    def bury(
        self,
        reason: str,
        payload: bytes,
        fields: Mapping[str, str],
        done: Done,
        *,
        identity: str = "",
        longest: int | None = None,
    ) -> None:
        """Keep what holds no readable event as a dead letter of the bridge, once.

        Its fields are `reason`, `size` (of the payload, bytes), those given, cut at `DEAD_FIELD`,
        and `envelope`: the payload.

        Args:
            identity: the same for every push of one event; empty: nothing tells repetitions.
            longest: bytes that are kept of a payload that is not acked anyway; such letters may
                take up half of the room only. None: all bytes.
        """
        if self._room.full:
            done(PublishRefused("full"))
            return
        pairs = [part for name, value in fields.items() for part in (name, value[:DEAD_FIELD])]
        fixed = ("reason", reason, "size", len(payload), "envelope", payload[:longest])
        keys = (self._dead, self._keys.buried(identity or secrets.token_hex(16)))
        most = self._dead_letters if longest is None else max(1, self._dead_letters // 2)
        options = (most, self._marker_ttl if identity else RETRIED)
        self._enqueue(
            pack("EVALSHA", _KEEP_LETTER.sha, len(keys), *keys, *options, *pairs, *fixed), done
        )

    async def drain(self, timeout: float) -> int:
        """Wait until nothing waits, `timeout` seconds at most; returns how many still wait."""
        ends = self._clock() + timeout
        while (running := self._running()) and (left := ends - self._clock()) > 0:
            await asyncio.wait(running, timeout=left)
        return self.waiting

    async def close(self) -> None:
        """Refuse what waits and close the connections."""
        await self._outage.close()
        if running := self._running():
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        taken = [waiting for each in self._connections for waiting in each.take_batch()]
        left = [*taken, *self._queue]
        self._queue.clear()
        self._refuse(left, "redis")
        for connection in self._connections:
            await connection.close()

    def _running(self) -> set[asyncio.Task[None]]:
        return {each.task for each in self._connections if each.task is not None}

    def _enqueue(self, command: bytes, done: Done) -> None:
        if self._backlog + len(command) > MAX_WAITING_BYTES:
            done(PublishRefused("overload"))
            return
        now = self._clock()
        busy = self._sending == len(self._connections)
        if not self._admission.takes(self.waiting, now, busy=busy):
            done(PublishRefused("capacity"))
            return
        self._queue.append(QueuedEntry(command, done, now + self._budget))
        self._backlog += len(command)
        self.waiting += 1
        if len(self._idle) == len(self._connections) or not self._admission.queue:
            self._start()
        elif self._idle and not self._paced:
            self._paced = True
            asyncio.get_running_loop().call_later(START_PERIOD, self._start)

    def _start(self) -> None:
        """Let an idle connection send what waits, if there are both.

        The task first runs at the end of this turn of the loop, so that all the turn brings is one
        batch.
        """
        self._paced = False
        if self._idle and self._queue:
            connection = self._idle.pop()
            connection.task = self._tasks.start(self._flush(connection), "publisher")

    async def _flush(self, connection: PublishConnection) -> None:
        self._sending += 1
        try:
            while self._fill(connection):
                if not self._leadership.leads():
                    self._refuse(connection.take_batch(), "fenced")
                elif again := await self._send(connection):
                    self._queue.extendleft(reversed(again))
                    await asyncio.sleep(_PAUSE)
        finally:
            self._sending -= 1
            connection.task = None
            self._idle.append(connection)

    def _fill(self, connection: PublishConnection) -> bool:
        """Move a batch from the queue to the connection.

        Entries whose time is over are refused unsent: their ack would come too late, and others
        wait.
        """
        now = self._clock()
        while self._queue and len(connection.batch) < BATCH:
            waiting = self._queue.popleft()
            if now < waiting.deadline:
                connection.batch.append(waiting)
            else:
                self._give_up(waiting)
        if len(self._queue) >= BATCH:
            self._start()
        return bool(connection.batch)

    async def _send(self, connection: PublishConnection) -> list[QueuedEntry]:
        """Send one batch; returns the entries to send again."""
        answers = await connection.send(connection.batch[0].deadline - self._clock())
        now = self._clock()
        pairs = zip(connection.take_batch(), answers, strict=True)
        again = [waiting for waiting, answer in pairs if not self._judge(waiting, answer, now)]
        await self._note(connection, answers)
        return again

    def _judge(self, waiting: QueuedEntry, answer: Any, now: float) -> bool:
        """Report the result of an entry; False when there is time to send it again."""
        if isinstance(answer, RedisError):
            waiting.trouble, waiting.error = _trouble(answer), answer
            if now < waiting.deadline and waiting.trouble in ("redis", "timeout"):
                return False
            self._give_up(waiting)
            return True
        result: Published | PublishRefused
        if is_fenced(answer):
            result = PublishRefused("fenced")
        elif finds_no_room(answer):
            result = PublishRefused("letters_full")
        else:
            result = Published(answer[1].decode(), duplicate=answer[0] == b"duplicate")
        self._report(waiting, result)
        return True

    async def _note(self, connection: PublishConnection, answers: Sequence[Any]) -> None:
        """Note what a batch says of the whole: fenced, full, failing, recovered."""
        self._note_letters(answers)
        self._note_markers(answers)
        if fenced := next(filter(is_fenced, answers), None):
            self._leadership.fenced(int(fenced[1] or 0))
        if any(isinstance(answer, OutOfMemoryError) for answer in answers):
            self._room.refused()
            return
        error = next((answer for answer in answers if isinstance(answer, RedisError)), None)
        if isinstance(error, NoScriptError):
            await connection.close()  # the next connection loads the script again
        if error is None:
            self._outage.succeeded()
        else:
            self._outage.failed(error)

    def _note_markers(self, answers: Sequence[Any]) -> None:
        """Log once that events are published without a marker."""
        unmarked = next((each for each in answers if _is_unmarked(each)), None)
        if unmarked is not None and not self._unmarked:
            self._unmarked = True
            error = RedisError(unmarked[2].decode())
            cure = self._outage.cure(error)
            hint = f"{cure}; until then an event that Feishu sends again comes in again"
            log.error("publish.unmarked", error=str(error), cure=hint)

    def _note_letters(self, answers: Sequence[Any]) -> None:
        """Log once when there is no room for dead letters, and once when there is again."""
        now, last = self._clock(), self._letters_full
        if full := next(filter(finds_no_room, answers), None):
            if last is None:
                log.error("letters.full", kept=int(full[1]), cure=_ROOM)
            self._letters_full = now
        elif last is not None and now - last >= CALM_AFTER and any(map(_is_kept, answers)):
            self._letters_full = None
            log.info("letters.relieved")

    def _give_up(self, waiting: QueuedEntry) -> None:
        if waiting.trouble != "full":
            self._outage.refused(waiting)
        self._report(waiting, PublishRefused(waiting.trouble))

    def _refuse(self, batch: Sequence[QueuedEntry], reason: Refusal) -> None:
        for waiting in batch:
            self._report(waiting, PublishRefused(reason))

    def _report(self, waiting: QueuedEntry, result: Published | PublishRefused) -> None:
        self.waiting -= 1
        self._backlog -= len(waiting.command)
        try:
            waiting.done(result)
        except Exception:  # one callback's mistake must not cost the rest of the batch its acks
            log.exception("publish.callback_failed")


def _is_kept(answer: Any) -> bool:
    return isinstance(answer, list) and answer[0] == b"kept"


def _is_unmarked(answer: Any) -> bool:
    return isinstance(answer, list) and len(answer) > 2


def _trouble(error: RedisError) -> Refusal:
    if isinstance(error, OutOfMemoryError):
        return "full"
    if isinstance(error, Undurable):
        return "undurable"
    return "timeout" if isinstance(error, TimeoutError) else "redis"
