"""Handlers that share an event retry on their own time, each with attempts of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

# As fixtures: the plugin itself may be imported by now, and could not be rewritten any more.
from flybridge.bridge.testing import embedded_redis, flybridge, local_feishu  # noqa: F401
from flybridge.handlers import Context, Retry

MESSAGE = "im.message.receive_v1"


class Calls:
    """When a handler was called, with which attempt, and what it asked for."""

    def __init__(self, *waits: float) -> None:
        self.waits = waits
        self.attempts: list[int] = []
        self.times: list[float] = []

    async def handle(self, event: Any, context: Context) -> None:
        self.times.append(time.monotonic())
        self.attempts.append(context.attempt)
        if len(self.times) <= len(self.waits):
            raise Retry(after=self.waits[len(self.times) - 1])

    def gaps(self) -> list[float]:
        return [later - one for one, later in zip(self.times, self.times[1:], strict=False)]


def test_a_quick_handlers_retry_does_not_wait_for_a_slow_one(flybridge: Any) -> None:  # noqa: F811
    quick, ended = Calls(0.1), []

    async def slow(event: Any, context: Context) -> None:
        await asyncio.sleep(1.5)
        ended.append(time.monotonic())

    flybridge.add_handler(quick.handle, MESSAGE, name="quick")
    flybridge.add_handler(slow, MESSAGE, name="slow")

    assert flybridge.push(MESSAGE).settled() == "done"

    assert quick.attempts == [1, 2]
    assert quick.times[1] < ended[0]
    assert len(ended) == 1


def test_nobody_is_called_before_its_time_or_for_anothers_attempts(flybridge: Any) -> None:  # noqa: F811
    late, soon = Calls(1.5), Calls(0.1, 0.1, 0.1)
    flybridge.add_handler(late.handle, MESSAGE, name="late", max_attempts=2)
    flybridge.add_handler(soon.handle, MESSAGE, name="soon")

    assert flybridge.push(MESSAGE).settled() == "done"

    assert (late.attempts, soon.attempts) == ([1, 2], [1, 2, 3, 4])
    assert late.gaps()[0] >= 1.5
    assert all(gap >= 0.1 for gap in soon.gaps())
    assert soon.times[-1] < late.times[-1]
