"""Corrects what Redis stamped while its clock was ahead, once the clock is back.

Otherwise retries and the take-over of dead workers' entries would be late by as much as the clock
went back. Each then comes at most as late as it may by its own measure (the wait asked for, or the
event lease), counted from now. Every worker of the group does this, a few pages at a time;
repeating it is harmless.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.workers.intake.consumer import Consumer

PAGES = 20
"""Pages at a time, at most; Redis serves nobody else for about a millisecond each."""

PAGE = 100
"""Pending entries in a page."""


class _Page(NamedTuple):
    """Where a look through one stream goes on."""

    script: str
    stream: str
    cursor: bytes


class StreamMending:
    """Corrects the streams of one consumer; called by one thread."""

    def __init__(self, consumer: Consumer, event_lease: float) -> None:
        self._consumer = consumer
        self._lease_ms = int(event_lease * 1000)
        self._seen = 0
        self._left: deque[_Page] = deque()

    def mend(self, back: int) -> None:
        """Go on with it.

        Args:
            back: how often the clock went back, 0 if no stamp can be wrong; told at each look.

        Raises:
            redis.RedisError: go on later.
        """
        if back > self._seen:
            self._seen = back
            self._left.clear()
            for stream in self._consumer.streams:
                self._left += (
                    _Page("mend_retries", stream, b"0"),
                    _Page("mend_pending", stream, b"-"),
                )
        for _ in range(PAGES):
            if not self._left:
                return
            if cursor := self._do(self._left[0]):
                self._left[0] = self._left[0]._replace(cursor=cursor)
            else:
                self._left.popleft()

    def _do(self, page: _Page) -> bytes:
        """Where to go on, empty at the end."""
        consumer, keys = self._consumer, self._consumer.keys
        if page.script == "mend_retries":
            retries = keys.retries_of(consumer.group, page.stream)
            names = (retries, page.stream, keys.states(consumer.group))
            call = Call(load(page.script), names, (self._lease_ms, page.cursor))
        else:
            told = (consumer.group, page.cursor, PAGE)
            call = Call(load(page.script), (page.stream,), told)
        (answer,) = run_all(consumer.redis, [call])
        # Of a key of a wrong type tells who needs it.
        cursor: bytes = b"" if isinstance(answer, Exception) else answer
        return cursor
