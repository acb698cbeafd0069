"""Two handlers of one event: the first dawdles, and the second is done in no time."""

from __future__ import annotations

import asyncio

from acting import note

from flybridge.handlers import Context, Event, handles


@handles("im.chat.disbanded_v1")
async def dawdle(event: Event, context: Context) -> None:
    note("started", "dawdle", event, context)
    await asyncio.sleep(0.2)
    note("finished", "dawdle", event, context)


@handles("im.chat.disbanded_v1")
async def dash(event: Event, context: Context) -> None:
    note("started", "dash", event, context)
    note("finished", "dash", event, context)
