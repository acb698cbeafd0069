"""Handlers that take batches: they write down each call, and do per event what its text says.

`hello` finish; `fail 1` fail the first attempt; `reject` refuse; `crash 9` kill the own process in
the first nine attempts.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence

from flybridge.handlers import Batch, BatchContext, Event, Reject, handles


def note(**fields: object) -> None:
    with open(os.environ["DEEDS"], "a") as deeds:
        deeds.write(json.dumps({**fields, "time": time.time()}) + "\n")


def act(event: Event, attempt: int) -> None:
    word, _, number = json.loads(event.body["message"]["content"])["text"].partition(" ")
    if word == "reject":
        raise Reject("the play says so")
    if word == "fail" and attempt <= int(number):
        raise ValueError("the play says so")
    if word == "crash" and attempt <= int(number):
        os.kill(os.getpid(), signal.SIGKILL)


@handles(
    "im.message.receive_v1", batch=Batch(size=50, wait=0.3), backoff=0.1, max_attempts=3, timeout=5
)
def gather(events: Sequence[Event], context: BatchContext) -> list[BaseException | None]:
    note(deed="called", events=len(events), attempts=context.attempts, pid=os.getpid())
    verdicts: list[BaseException | None] = []
    for event, attempt in zip(events, context.attempts, strict=True):
        try:
            act(event, attempt)
        except Exception as error:
            verdicts.append(error)
        else:
            verdicts.append(None)
    for event, verdict in zip(events, verdicts, strict=True):
        if verdict is None:
            note(deed="finished", event_id=event.id)
    return verdicts


@handles("im.chat.updated_v1", batch=Batch(size=50, wait=0.3), concurrency=1)
def one_batch_at_a_time(events: Sequence[Event], context: BatchContext) -> None:
    note(deed="began", events=len(events))
    time.sleep(0.1)
    note(deed="ended", events=len(events))
    for event in events:
        note(deed="finished", event_id=event.id)
