"""The handlers of the chaos suite: each writes down what it does, to a file outside Redis.

A line has the fields of `history.Deed`, with tabs between them. Its time is the monotonic clock's:
faults move the other one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from handlers import Batch, BatchContext, Context, Event, Reject, handles
from handlers.registry import registry

# One write of one line to a file opened for appending: lines of several processes do not mix.
_DEEDS = os.open(os.environ["DEEDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_ACTOR = os.environ["ACTOR"]


def note(deed: str, event: Event, context: Context) -> None:
    write(deed, context.handler, event.id, context.attempt)


def write(deed: str, handler: str, event_id: str, attempt: int) -> None:
    line = (
        deed,
        handler,
        event_id,
        str(attempt),
        _ACTOR,
        str(os.getpid()),
        f"{time.monotonic():.6f}",
    )
    os.write(_DEEDS, ("\t".join(line) + "\n").encode())


def fail(event: Event, context: Context) -> None:
    note("failed", event, context)
    raise ValueError("the play says so")


@handles("chaos.plain", name="plain", backoff=0.1)
def plain(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


@handles("chaos.slow", name="slow", backoff=0.1)
def slow(event: Event, context: Context) -> None:
    note("started", event, context)
    time.sleep(event.body["seconds"])
    note("finished", event, context)


@handles("chaos.flaky", name="flaky", backoff=0.1)
def flaky(event: Event, context: Context) -> None:
    note("started", event, context)
    if context.attempt == 1:
        fail(event, context)
    note("finished", event, context)


@handles("chaos.waiting", name="waiting", backoff=0.1)
async def waiting(event: Event, context: Context) -> None:
    note("started", event, context)
    await asyncio.sleep(event.body["seconds"])
    note("finished", event, context)


@handles("chaos.pair", name="first_of_pair", backoff=0.1)
def first_of_pair(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


@handles("chaos.pair", name="second_of_pair", backoff=0.1)
async def second_of_pair(event: Event, context: Context) -> None:
    note("started", event, context)
    if context.attempt == 1:
        fail(event, context)
    note("finished", event, context)


@handles("chaos.ordered", name="ordered", ordered_by="body.key", backoff=0.1)
def ordered(event: Event, context: Context) -> None:
    note("started", event, context)
    time.sleep(event.body["seconds"])
    if context.attempt == 1 and event.body["fails"]:
        fail(event, context)
    note("finished", event, context)


@handles("chaos.batched", name="batched", batch=Batch(size=20, wait=0.1), backoff=0.1)
def batched(events: Sequence[Event], context: BatchContext) -> list[Exception | None]:
    verdicts: list[Exception | None] = []
    for event, attempt in zip(events, context.attempts, strict=True):
        write("started", context.handler, event.id, attempt)
    for event, attempt in zip(events, context.attempts, strict=True):
        fails = attempt == 1 and event.body["fails"]
        write("failed" if fails else "finished", context.handler, event.id, attempt)
        verdicts.append(ValueError("the play says so") if fails else None)
    return verdicts


@handles("chaos.business", name="business", dedup_by="body.key", backoff=0.1)
def business(event: Event, context: Context) -> None:
    note("started", event, context)
    time.sleep(event.body["seconds"])
    if context.attempt == 1 and event.body["fails"]:
        fail(event, context)
    note("finished", event, context)


@handles("chaos.poison", name="poison", max_attempts=2, backoff=0.1)
def poison(event: Event, context: Context) -> None:
    note("started", event, context)
    fail(event, context)


@handles("chaos.rejected", name="rejected")
def rejected(event: Event, context: Context) -> None:
    note("started", event, context)
    note("failed", event, context)
    raise Reject("the play says so")


@handles("chaos.crash", name="crash", queue="crash", max_attempts=2)
def crash(event: Event, context: Context) -> None:
    note("started", event, context)
    note("crashing", event, context)
    os.kill(os.getpid(), signal.SIGKILL)


def unknown(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


registry.set_default(unknown)
