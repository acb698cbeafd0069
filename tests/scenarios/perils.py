"""Handlers that kill their process, and handlers with limits; they write down what they do.

The text of a message says what to do: `exit`, `segfault`, `hog` (memory, until the kernel or we
kill it), `hang 60` (seconds, deaf to the soft time limit), `slow 0.2`, anything else is quick.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time

from flybridge.handlers import Context, Event, Retry, handles


def note(deed: str, event: Event, context: Context) -> None:
    line = {
        "deed": deed,
        "handler": context.handler,
        "event_id": event.id,
        "attempt": context.attempt,
        "pid": os.getpid(),
        "time": time.time(),
    }
    # One write of one line: appends of several processes do not mix.
    with open(os.environ["DEEDS"], "a") as deeds:
        deeds.write(json.dumps(line) + "\n")


def hang(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except Exception:  # noqa: S112  # deaf to the soft time limit is what is played
            continue


@handles("im.message.receive_v1", max_attempts=3, backoff=0.1, timeout=1)
def endanger(event: Event, context: Context) -> None:
    note("started", event, context)
    word, _, number = json.loads(event.body["message"]["content"])["text"].partition(" ")
    if word == "exit":
        os._exit(1)
    if word == "segfault":
        ctypes.string_at(0)
    if word == "hog":
        # What the kernel does to who took too much.
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang":
        hang(float(number))
    if word == "slow":
        time.sleep(float(number))
    note("finished", event, context)


@handles("im.message.recalled_v1", max_attempts=1)
def once(event: Event, context: Context) -> None:
    note("started", event, context)
    time.sleep(0.01)
    note("finished", event, context)


@handles("contact.user.created_v3", rate_limit="10/s")
def rated(event: Event, context: Context) -> None:
    note("started", event, context)
    note("finished", event, context)


@handles("contact.user.updated_v3", concurrency=2, timeout=5)
def narrow(event: Event, context: Context) -> None:
    note("started", event, context)
    time.sleep(0.1)
    note("finished", event, context)


@handles("contact.user.deleted_v3", max_age=30)
def timely(event: Event, context: Context) -> None:
    note("started", event, context)
    raise Retry(after=0 if context.attempt == 1 else 60, reason="not yet")
