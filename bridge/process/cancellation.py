"""Restores cancellations that Python 3.11 loses. Not needed from Python 3.12 on.

`asyncio.wait_for`, which redis-py uses for every write, swallows a cancellation that arrives in the
turn of the loop in which the write is done; the task would then run for ever.
"""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise a cancellation that got lost; call it after each redis-py command.

    Raises:
        asyncio.CancelledError: the current task was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
