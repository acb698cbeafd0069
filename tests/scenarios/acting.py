"""Handlers that write down what they do, and do what the message's text says.

`hello`            finish
`slow 1.5`         take so many seconds
`stuck 1`          never finish the first attempt
`fail 2`           fail the first two attempts
`reject`           refuse for good
`crash 1`          kill the own process in the first attempt
`later 0.5`        ask for a retry after so many seconds, once
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

from flybridge.handlers import Context, Event, Reject, Retry, handles


def note(deed: str, handler: str, event: Event, context: Context) -> None:
    line = {
        "deed": deed,
        "handler": handler,
        "event_id": event.id,
        "type": event.type,
        "attempt": context.attempt,
        "pid": os.getpid(),
        "time": time.time(),
    }
    # One write of one line: appends of several processes do not mix.
    with open(os.environ["DEEDS"], "a") as deeds:
        deeds.write(json.dumps(line) + "\n")


def direction(event: Event) -> tuple[str, float]:
    text = json.loads(event.body["message"]["content"])["text"]
    word, _, number = text.partition(" ")
    return word, float(number or 0)


def misbehave(word: str, number: float, context: Context) -> None:
    if word == "reject":
        raise Reject("the play says so")
    if word == "fail" and context.attempt <= number:
        raise ValueError("the play says so")
    if word == "later" and context.attempt == 1:
        raise Retry(after=number)
    if word == "stuck" and context.attempt <= number:
        time.sleep(3600)
    if word == "crash" and context.attempt <= number:
        os.kill(os.getpid(), signal.SIGKILL)


@handles("im.message.receive_v1", backoff=0.1)
def act(event: Event, context: Context) -> None:
    note("started", "act", event, context)
    word, number = direction(event)
    misbehave(word, number, context)
    if word == "slow":
        time.sleep(number)
    note("finished", "act", event, context)


@handles("im.message.reaction.created_v1", backoff=0.1)
async def react(event: Event, context: Context) -> None:
    note("started", "react", event, context)
    await asyncio.sleep(0.1)
    note("finished", "react", event, context)


@handles("im.chat.updated_v1", backoff=0.1)
def first_of_two(event: Event, context: Context) -> None:
    note("finished", "first", event, context)


@handles("im.chat.updated_v1", backoff=0.1)
async def second_of_two(event: Event, context: Context) -> None:
    note("started", "second", event, context)
    if context.attempt == 1:
        raise ValueError("the second handler fails once")
    note("finished", "second", event, context)


@handles("im.message.recalled_v1", max_attempts=2)
def poison(event: Event, context: Context) -> None:
    note("started", "poison", event, context)
    os.kill(os.getpid(), signal.SIGKILL)


@handles("im.message.reaction.deleted_v1", backoff=0.1, max_attempts=2)
async def leave(event: Event, context: Context) -> None:
    note("started", "leave", event, context)

    async def end_all() -> None:
        raise SystemExit(1)

    await asyncio.gather(end_all())


@handles("im.chat.member.bot.added_v1")
async def stay(event: Event, context: Context) -> None:
    note("started", "stay", event, context)
    try:
        await asyncio.Event().wait()
    finally:
        note("cancelled", "stay", event, context)


@handles("im.message.message_read_v1", backoff=0.1, timeout=0.5)
async def linger(event: Event, context: Context) -> None:
    note("started", "linger", event, context)
    try:
        await asyncio.sleep(0 if context.attempt > 1 else 60)
    except asyncio.CancelledError:
        note("cancelled", "linger", event, context)
        raise
    note("finished", "linger", event, context)
