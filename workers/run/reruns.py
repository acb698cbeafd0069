"""Calls a handler again while others of its event still run, instead of waiting for them."""

from __future__ import annotations

import asyncio
import time


class Reruns:
    """The running handlers of one attempt at one event; belongs to one loop.

    Args:
        handlers: that are about to be called, each for the first time in this attempt.
        until: monotonic seconds after which no handler is called again in this attempt.
    """

    def __init__(self, handlers: int, until: float) -> None:
        self._running = handlers
        self._until = until
        self._all_ended = asyncio.Event()

    def ended(self) -> None:
        """Note that a handler has ended."""
        self._running -= 1
        if not self._running:
            self._all_ended.set()

    async def is_due(self, due: float) -> bool:
        """Wait for the retry of a handler that has ended, as long as others run.

        Args:
            due: monotonic seconds.

        Returns:
            True when it is to be called again now, and counts as running; False if its event has
            to have another attempt for that.
        """
        if not self._running or due > self._until:
            return False
        try:
            async with asyncio.timeout(due - time.monotonic()):
                await self._all_ended.wait()
        except TimeoutError:
            self._running += 1
            self._all_ended.clear()
            return True
        return False
