"""Handlers of an app with a bug, mended when the file `$DEEDS.mended` is there.

A text of `slow 5` makes the mended handler take so many seconds in its first attempt.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from flybridge.handlers import Context, Event, handles


def note(deed: str, handler: str, event: Event, context: Context) -> None:
    line = {
        "deed": deed,
        "handler": handler,
        "event_id": event.id,
        "group": os.environ["FLYBRIDGE_GROUP"],
        "attempt": context.attempt,
        "time": time.time(),
    }
    with open(os.environ["DEEDS"], "a") as deeds:
        deeds.write(json.dumps(line) + "\n")


def is_mended() -> bool:
    return (
        os.environ["FLYBRIDGE_GROUP"] != "workers" or Path(os.environ["DEEDS"] + ".mended").exists()
    )


@handles("im.message.receive_v1")
def sound(event: Event, context: Context) -> None:
    note("finished", "sound", event, context)


@handles("im.message.receive_v1", max_attempts=2, backoff=0.05)
def buggy(event: Event, context: Context) -> None:
    note("started", "buggy", event, context)
    if not is_mended():
        raise ValueError("the bug")
    word, _, seconds = json.loads(event.body["message"]["content"])["text"].partition(" ")
    if word == "slow" and context.attempt == 1:
        time.sleep(float(seconds))
    note("finished", "buggy", event, context)
