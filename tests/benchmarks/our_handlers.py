"""Flybridge's side: the handlers of the events that the benchmarks send."""

from __future__ import annotations

import asyncio
import time

import events
from notes import note, note_first

from handlers import Context, Event, handles


@handles(events.NOOP)
def nothing(event: Event, context: Context) -> None:
    """Costs nothing, so that what is measured is everything else."""


@handles(events.STAMP)
def stamp(event: Event, context: Context) -> None:
    """Note how old the event is."""
    note(time.time() - event.body["sent"])


@handles(events.WAIT)
async def wait(event: Event, context: Context) -> None:
    """Stands for a call of some web service; notes when the first one began."""
    note_first()
    await asyncio.sleep(0.1)
