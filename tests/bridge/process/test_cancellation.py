"""The cancellation that `asyncio.wait_for` of Python 3.11 swallows."""

from __future__ import annotations

import asyncio

import pytest

from flybridge.bridge.process.cancellation import heed_cancellation


async def test_a_cancellation_that_was_swallowed_is_raised() -> None:
    swallowed = asyncio.Event()

    async def swallow() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            swallowed.set()
        heed_cancellation()

    task = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert swallowed.is_set()


async def test_without_one_nothing_happens() -> None:
    heed_cancellation()
