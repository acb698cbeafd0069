"""Flybridge's side: the handlers of the events that the benchmarks send."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

import events
from notes import note, note_first

from flybridge.handlers import Batch, BatchContext, Context, Event, handles
from flybridge.workers.dispatch import bundles

if "BENCH_ONE_A_REQUEST" in os.environ:
    bundles.MAX_BUNDLE = 1


@handles(events.NOOP)
def nothing(event: Event, context: Context) -> None:
    """Costs nothing, so that what is measured is everything else."""


@handles(events.BATCH, batch=Batch(size=500, wait=0.02))
def nothing_at_once(events: Sequence[Event], context: BatchContext) -> None:
    """Costs nothing either, and gets many at a time."""


@handles(events.HOT, ordered_by="body.message.chat_id")
def hot(event: Event, context: Context) -> None:
    """All events have this one key, so that one runs at a time."""


@handles(events.OWN_KEY, ordered_by="envelope.header.event_id")
def own_key(event: Event, context: Context) -> None:
    """Every event has a key of its own."""


@handles(events.STAMP)
def stamp(event: Event, context: Context) -> None:
    """Note how old the event is."""
    note(time.time() - event.body["sent"])


@handles(events.WAIT)
async def wait(event: Event, context: Context) -> None:
    """Stands for a call of some web service; notes when the first one began."""
    note_first()
    await asyncio.sleep(0.1)
