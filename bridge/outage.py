"""Publishing that fails: why, and the trial that finds out when it works again.

It begins with an entry that Redis did not take within its budget, for whatever reason but a lack of
memory (which `headroom` knows). The first such entry is kept and sent again every `PERIOD` seconds,
and at once when another entry was taken; with the one or the other taken, publishing works. So an
outage ends by itself though no event comes, and not as long as Redis takes some entries and refuses
others. What was kept may then be in Redis without an ack: when Feishu sends it again, it is a
duplicate.

Nobody gives the lease up for it: a standby has the same Redis and, as a rule, the same rights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from redis.exceptions import OutOfMemoryError, RedisError

from bridge.lane import PATIENCE, Lane, Waiting, is_fenced

PERIOD = 1.0
"""Seconds between two trials."""


class Outage:
    """At most one at a time, of one publisher.

    Args:
        lane: of its own; it is connected while an outage lasts.
        leads: asked before each trial; an outage ends with the leadership.
        explain: what to tell of an error.
        on_end: called when an entry that was refused has been taken.
        watch: called with each task of ours; none of them ends by an exception.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        leads: Callable[[], bool],
        explain: Callable[[RedisError], str],
        on_end: Callable[[], None],
        watch: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.trouble = ""
        """Why entries are refused; empty while publishing works, as far as is known."""
        self._lane = lane
        self._leads, self._explain, self._on_end = leads, explain, on_end
        self._watch = watch
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def refused(self, entry: Waiting) -> None:
        """This entry was not taken within its budget."""
        if self.trouble:
            return
        self.trouble = self._explain(entry.error)
        trying = self._try(Waiting(entry.command, lambda result: None, 0.0))
        self._task = asyncio.get_running_loop().create_task(trying, name="publish-trial")
        self._watch(self._task)

    def hurry(self) -> None:
        """Another entry was taken: try at once."""
        self._hurry.set()

    async def close(self) -> None:
        """End the trials."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._lane.close()

    async def _try(self, entry: Waiting) -> None:
        try:
            while await self._pause():
                self._lane.sent = [entry]
                (answer,) = await self._lane.send(PATIENCE)
                # The next one is to find new rights, scripts and servers.
                await self._lane.close()
                if not isinstance(answer, RedisError):
                    self.trouble = ""
                    if not is_fenced(answer):
                        self._on_end()
                    return
                if isinstance(answer, OutOfMemoryError):
                    return
                self.trouble = self._explain(answer)
        finally:
            self.trouble, self._task = "", None

    async def _pause(self) -> bool:
        """Whether there is to be another trial, after `PERIOD` seconds or when it is urgent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PERIOD):
                await self._hurry.wait()
        self._hurry.clear()
        return self._leads()
