"""The handlers of the chaos suite: each writes down what it does, to a file outside Redis.

A line has the fields of `history.Deed`, with tabs between them. Its time is the monotonic clock's:
faults move the other one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from flybridge.handlers import Batch, BatchContext, Context, Event, Reject, handles
from flybridge.handlers.registry import registry

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


@contextmanager
def alone(handler: str, event: Event, attempt: int) -> Iterator[None]:
    """Hold a lock for the event, and one for its key, and write down if another has it.

    It ends with the process, and only with that if a handler hangs.
    """
    with ExitStack() as stack:
        for what in {event.id, event.body.get("key", event.id)}:
            lock = stack.enter_context(open(f"{os.environ['DEEDS']}.{handler}.{what}", "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                write("overlapped", handler, event.id, attempt)
        yield


def hangs(event: Event, attempt: int) -> bool:
    return attempt == 1 and event.body.get("hangs", False)


def hang(handler: str, event: Event, attempt: int) -> None:
    if hangs(event, attempt):
        write("hanging", handler, event.id, attempt)
        be_deaf(LONG)


def be_deaf(seconds: float) -> None:
    """To the soft time limit, too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except Exception:  # noqa: S112
            continue


LATE: Any = {"timeout": 0.5, "backoff": 0.1}
LONG = 3.5
"""Seconds that who hangs goes on: longer than a prefork child bears with any of them."""


@handles("chaos.hanging", name="hanging", **LATE)
def hanging(event: Event, context: Context) -> None:
    note("started", event, context)
    with alone(context.handler, event, context.attempt):
        hang(context.handler, event, context.attempt)
        note("finished", event, context)


@handles("chaos.blocking", name="blocking", **LATE)
async def blocking(event: Event, context: Context) -> None:
    # In a service the bridge shares its loop: it would lose its leadership each time.
    if _ACTOR != "service":
        hanging(event, context)
        return
    note("started", event, context)
    note("finished", event, context)


@handles("chaos.enduring", name="enduring", **LATE)
async def enduring(event: Event, context: Context) -> None:
    note("started", event, context)
    with alone(context.handler, event, context.attempt):
        late = hangs(event, context.attempt)
        if late:
            note("hanging", event, context)
        end = time.monotonic() + (LONG if late else 0)
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue
        note("finished", event, context)


@handles("chaos.hanging", name="beside_hanging", **LATE)
def beside_hanging(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


@handles("chaos.blocking", name="beside_blocking", **LATE)
def beside_blocking(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


@handles("chaos.enduring", name="beside_enduring", **LATE)
def beside_enduring(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


@handles("chaos.hanging", name="later_beside_hanging", **LATE)
async def later_beside_hanging(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


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


@handles("chaos.ordered", name="ordered", ordered_by="body.key", timeout=2.0, backoff=0.1)
def ordered(event: Event, context: Context) -> None:
    note("started", event, context)
    with alone(context.handler, event, context.attempt):
        time.sleep(event.body["seconds"])
        hang(context.handler, event, context.attempt)
        if context.attempt == 1 and event.body["fails"]:
            fail(event, context)
        note("finished", event, context)


@handles("chaos.batched", name="batched", batch=Batch(size=20, wait=0.1), **LATE)
def batched(events: Sequence[Event], context: BatchContext) -> list[Exception | None]:
    verdicts: list[Exception | None] = []
    for event, attempt in zip(events, context.attempts, strict=True):
        write("started", context.handler, event.id, attempt)
    if any(map(hangs, events, context.attempts)):
        for event, attempt in zip(events, context.attempts, strict=True):
            write("hanging", context.handler, event.id, attempt)
        be_deaf(LONG)
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
