"""Handlers with an order or a business key; they write down what they do, as those of `acting`."""

from __future__ import annotations

import time

from acting import direction, misbehave, note

from flybridge.handlers import Context, Event, handles


def perform(handler: str, event: Event, context: Context) -> None:
    note("started", handler, event, context)
    word, number = direction(event)
    misbehave(word, number, context)
    if word == "slow":
        time.sleep(number)
    note("finished", handler, event, context)


# Their types are none of `acting`'s, whose handlers are registered too.
@handles("im.message.bot_muted_v1", backoff=0.1, ordered_by="body.message.chat_id")
def converse(event: Event, context: Context) -> None:
    perform("converse", event, context)


@handles("im.message.updated_v1", backoff=0.1, max_attempts=3, dedup_by="body.message.message_id")
def answer(event: Event, context: Context) -> None:
    perform("answer", event, context)


@handles("im.message.updated_v1", backoff=0.1)
def count(event: Event, context: Context) -> None:
    note("counted", "count", event, context)


@handles(
    "im.message.bot_unmuted_v1",
    backoff=0.1,
    ordered_by="body.message.chat_id",
    dedup_by="body.message.message_id",
)
def tell(event: Event, context: Context) -> None:
    perform("tell", event, context)
