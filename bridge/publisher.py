"""Entries into streams, in batches, each once. Not a queue: nothing waits longer than its budget.

What was submitted while a batch was on its way forms the next one. The script is idempotent, so a
batch without an answer is simply sent again as long as its entries have time.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, TimeoutError

from bridge.pipe import Pipe, pack
from bridge.streams import BRIDGE_GROUP, MARKER_TTL, MAX_TYPES, OTHER, Entry, Keys

BATCH = 512
"""Entries in one pipeline at most: some 700 kB."""

BUDGET = 2.0
"""Seconds in which an entry is in Redis or refused. Feishu waits 3 s for an ack."""

FULL, DRAINED = 2_000, 1_000
"""Entries waiting above which reading should pause, and below which it may go on."""

DEAD_LETTERS = 1_000
"""Dead letters of the bridge that are kept."""

DEAD_PAYLOAD = 65_536
"""Bytes of a dead letter's payload that are kept."""

DEAD_FIELD = 4_096
"""Characters of each other field that are kept: headers can be as long as a frame."""

_PATIENCE = 1.0  # seconds for a batch's replies; a hung connection leaves time for another
_IMPATIENCE = 0.25  # at least so long, else a late batch would time out again and again
_PAUSE = 0.1  # seconds before what failed is sent again

_SCRIPT = files("bridge").joinpath("lua", "publish.lua").read_text(encoding="utf-8")
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

log = structlog.get_logger("bridge.publisher")


@dataclass(frozen=True, slots=True)
class Published:
    """The event is in Redis; `duplicate` when an earlier delivery had brought it there."""

    entry_id: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class PublishRefused:
    """The event is not known to be in Redis.

    Attributes:
        reason: `fenced`: this process no longer leads; `redis`: an error until the budget was
            spent; `timeout`: no answer until then.
    """

    reason: Literal["fenced", "redis", "timeout"]


Done = Callable[[Published | PublishRefused], None]


@dataclass(slots=True)
class _Waiting:
    command: bytes
    done: Done
    deadline: float


class Publisher:
    """Publishes for one app over one connection of its own.

    Args:
        redis: only its connection settings are used.
        leads: asked right before anything is sent; `LeaseElector.leads`.
        on_fenced: called when Redis knows another term, once a batch.
        on_full, on_drained: called when more than `FULL` entries wait, and again below `DRAINED`.
        budget: seconds in which an entry is published or refused.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        leads: Callable[[], bool] = lambda: True,
        on_fenced: Callable[[], None] = lambda: None,
        on_full: Callable[[], None] = lambda: None,
        on_drained: Callable[[], None] = lambda: None,
        budget: float = BUDGET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_fenced, self.on_full, self.on_drained = on_fenced, on_full, on_drained
        self.waiting = 0
        """Entries submitted whose `done` has not been called."""
        self._keys = keys
        self._lease, self._types, self._other = keys.lease, keys.types, keys.stream(OTHER)
        self._dead = keys.dead(BRIDGE_GROUP)
        self._leads = leads
        self._budget = budget
        self._clock = clock
        self._pipe = Pipe(redis.connection_pool, [pack("SCRIPT", "LOAD", _SCRIPT)])
        self._queue: deque[_Waiting] = deque()
        self._sent: list[_Waiting] = []
        self._full = False
        self._failing = False
        self._flushing: asyncio.Task[None] | None = None

    def submit(self, entry: Entry, done: Done) -> None:
        """Publish an entry under `entry.term`; never blocks, `done` gets the result."""
        stream = self._keys.stream(entry.event_type)
        name = stream.rpartition(":")[2]
        marker = self._keys.published(entry.event_id)
        keys = (self._lease, marker, self._types, stream, self._other)
        options = (entry.term, name, MAX_TYPES, MARKER_TTL)
        self._enqueue(pack("EVALSHA", _SHA, len(keys), *keys, *options, *entry.fields()), done)

    def bury(self, reason: str, payload: bytes, fields: Mapping[str, str], done: Done) -> None:
        """Keep what holds no readable event as a dead letter of the bridge.

        Fields: `reason`, `size` (of the payload, bytes), those given, cut at `DEAD_FIELD`, and
        `envelope`: the payload, cut at `DEAD_PAYLOAD`.
        """
        pairs = [part for name, value in fields.items() for part in (name, value[:DEAD_FIELD])]
        fixed = ("reason", reason, "size", len(payload), "envelope", payload[:DEAD_PAYLOAD])
        self._enqueue(
            pack("XADD", self._dead, "MAXLEN", "~", DEAD_LETTERS, "*", *pairs, *fixed), done
        )

    async def drain(self, timeout: float) -> int:
        """Wait until nothing waits, `timeout` seconds at most; returns how many still do."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing}, timeout=timeout)
        return self.waiting

    async def close(self) -> None:
        """Refuse what waits and close the connection."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait({self._flushing})
        left = [*self._sent, *self._queue]
        self._sent = []
        self._queue.clear()
        self._refuse(left, "redis")
        await self._pipe.close()

    def _enqueue(self, command: bytes, done: Done) -> None:
        self._queue.append(_Waiting(command, done, self._clock() + self._budget))
        self.waiting += 1
        if self.waiting > FULL and not self._full:
            self._full = True
            self.on_full()
        if self._flushing is None:
            # The task first runs when this turn of the loop is over: all it brought is one batch.
            self._flushing = asyncio.get_running_loop().create_task(self._flush(), name="publisher")

    async def _flush(self) -> None:
        try:
            while self._queue:
                self._sent = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                if not self._leads():
                    self._refuse(self._taken(), "fenced")
                elif again := await self._send():
                    self._queue.extendleft(reversed(again))
                    await asyncio.sleep(_PAUSE)
        finally:
            self._flushing = None

    async def _send(self) -> list[_Waiting]:
        """Send one batch; returns what is to be sent again."""
        left = self._sent[0].deadline - self._clock()
        timeout = max(_IMPATIENCE, min(_PATIENCE, left))
        answers = await self._pipe.send([waiting.command for waiting in self._sent], timeout)
        now = self._clock()
        pairs = zip(self._taken(), answers, strict=True)
        again = [waiting for waiting, answer in pairs if not self._judge(waiting, answer, now)]
        await self._note(answers)
        return again

    def _taken(self) -> list[_Waiting]:
        batch, self._sent = self._sent, []
        return batch

    def _judge(self, waiting: _Waiting, answer: Any, now: float) -> bool:
        """Settle an entry by its answer; False when it has time to be sent again."""
        if isinstance(answer, bytes):
            result: Published | PublishRefused = Published(answer.decode())
        elif isinstance(answer, RedisError):
            if now < waiting.deadline:
                return False
            result = PublishRefused("timeout" if isinstance(answer, TimeoutError) else "redis")
        elif answer[0] == b"fenced":
            result = PublishRefused("fenced")
        else:
            result = Published(answer[1].decode(), duplicate=answer[0] == b"duplicate")
        self._settle(waiting, result)
        return True

    async def _note(self, answers: Sequence[Any]) -> None:
        """What a batch says of the whole: fenced, failing, well again."""
        if any(isinstance(answer, list) and answer[0] == b"fenced" for answer in answers):
            self.on_fenced()
        error = next((answer for answer in answers if isinstance(answer, RedisError)), None)
        if isinstance(error, NoScriptError):
            await self._pipe.close()  # the next connection loads the script again
        if (error is None) == self._failing:
            self._failing = error is not None
            if error is not None:
                log.warning("publish.failed", error=str(error), cure="see whether Redis is well")
            else:
                log.info("publish.recovered")

    def _refuse(self, batch: Sequence[_Waiting], reason: Literal["fenced", "redis"]) -> None:
        for waiting in batch:
            self._settle(waiting, PublishRefused(reason))

    def _settle(self, waiting: _Waiting, result: Published | PublishRefused) -> None:
        self.waiting -= 1
        try:
            waiting.done(result)
        except Exception:  # one callback's mistake must not cost the rest of the batch its acks
            log.exception("publish.callback_failed")
        if self._full and self.waiting < DRAINED:
            self._full = False
            self.on_drained()
