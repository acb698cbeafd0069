"""Handlers that do not end in time, beside healthy ones, in every mixture; a type for each.

They are deaf to their interruption, and end after the seconds in the event, if there are any: 0 is
never. Each holds a file's lock meanwhile, which ends with its process; who finds it taken runs
beside another attempt, or another event of its key, and writes that down.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from flybridge.handlers import Batch, BatchContext, Context, Event, Middleware, handles, use
from flybridge.workers.routes import routing

DEF, ASYNC, BLOCKING, STUBBORN = "chat.def", "chat.async", "chat.blocking", "chat.stubborn"
BATCH, AFTER_BATCH, ALONE, KEYED = "chat.batch", "chat.after_batch", "chat.alone", "chat.keyed"

routing.INTERRUPT_GRACE = routing.COROUTINE_MARGIN = 0.3

OPTIONS: Any = {"timeout": 0.3, "max_attempts": 2, "backoff": 0.1}
TOGETHER = Batch(size=3, wait=0.1)

if os.environ.get("SURROUNDED"):

    @use
    class Around(Middleware):
        async def before(self, event: object, context: object) -> None: ...


def note(deed: str, handler: str, event: Event, attempt: int) -> None:
    line = {
        "deed": deed, "handler": handler, "event_id": event.id, "event_type": event.type,
        "attempt": attempt, "pid": os.getpid(), "time": time.monotonic(),
    }  # fmt: skip
    with open(os.environ["DEEDS"], "a") as deeds:
        deeds.write(json.dumps(line) + "\n")


@contextmanager
def noted(handler: str, event: Event, attempt: int) -> Iterator[None]:
    """Write down when it starts and ends, and whether anything runs beside it that must not."""
    note("started", handler, event, attempt)
    with ExitStack() as stack:
        for what in (event.id, event.body.get("key")):
            if what:
                lock = stack.enter_context(open(f"{os.environ['DEEDS']}.{handler}.{what}", "w"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    note("overlapped", handler, event, attempt)
        yield
        # Before the next one may start.
        note("finished", handler, event, attempt)


def deaf(event: Event) -> None:
    end = time.monotonic() + (event.body["seconds"] or 3600)
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except BaseException:  # noqa: S112  # deaf is what it is
            continue


def healthy(event: Event, context: Context) -> None:
    with noted(context.handler, event, context.attempt):
        pass


async def healthy_later(event: Event, context: Context) -> None:
    healthy(event, context)


def hang(event: Event, context: Context) -> None:
    with noted(context.handler, event, context.attempt):
        deaf(event)


async def block(event: Event, context: Context) -> None:
    hang(event, context)


async def endure(event: Event, context: Context) -> None:
    with noted(context.handler, event, context.attempt):
        end = time.monotonic() + (event.body["seconds"] or 3600)
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue


def hang_with_all(events: Sequence[Event], context: BatchContext) -> None:
    with ExitStack() as stack:
        for event, attempt in zip(events, context.attempts, strict=True):
            stack.enter_context(noted(context.handler, event, attempt))
        deaf(events[0])


def healthy_with_all(events: Sequence[Event], context: BatchContext) -> None:
    for event, attempt in zip(events, context.attempts, strict=True):
        with noted(context.handler, event, attempt):
            pass


# The hanging ones first: where handlers run in order, the healthy ones have to wait for them.
handles(DEF, ASYNC, AFTER_BATCH, ALONE, name="hang", **OPTIONS)(hang)
handles(KEYED, name="hang_in_line", ordered_by="body.key", **OPTIONS)(hang)
handles(BLOCKING, name="block", **OPTIONS)(block)
handles(STUBBORN, name="endure", **OPTIONS)(endure)
handles(BATCH, name="hang_with_all", batch=TOGETHER, **OPTIONS)(hang_with_all)
handles(AFTER_BATCH, name="healthy_with_all", batch=TOGETHER, **OPTIONS)(healthy_with_all)
handles(DEF, BLOCKING, STUBBORN, BATCH, KEYED, name="healthy", **OPTIONS)(healthy)
handles(DEF, ASYNC, STUBBORN, name="healthy_later", **OPTIONS)(healthy_later)


@handles("chat.quick", name="quick")
async def quick(event: Event, context: Context) -> None:
    healthy(event, context)
