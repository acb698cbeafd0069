"""The events of the benchmarks: a message of 1.2 KB, as Feishu's envelope and as stream entry."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import redis

from flybridge.bridge.store.streams import Entry, Keys

APP_ID = "cli_bench"
KEYS = Keys(APP_ID)
SIZE = 1237
"""Bytes of an envelope."""

NOOP = "im.message.receive_v1"
STAMP = "im.message.message_read_v1"
WAIT = "im.message.recalled_v1"
HOT = "im.message.bot_muted_v1"
OWN_KEY = "im.message.updated_v1"
BATCH = "im.message.reaction.created_v1"

_DIGITS = 12


def event_id(number: int) -> str:
    """Fixed width, so that an envelope is made by putting it between two constant parts."""
    return f"bench-{number:0{_DIGITS}d}"


def around(event_type: str = NOOP) -> tuple[bytes, bytes]:
    """What stands before and after the event id in an envelope of `SIZE` bytes."""
    person = {"union_id": "on_a1", "user_id": "u_a1", "open_id": "ou_a1"}
    sender = {"sender_id": person, "sender_type": "user", "tenant_key": "tk1"}
    message = {"message_id": "om_m1", "create_time": "1763800000123", "chat_id": "oc_c1",
               "chat_type": "group", "message_type": "text"}  # fmt: skip
    header = {"event_id": event_id(0), "event_type": event_type, "create_time": "1763800000123",
              "token": "", "app_id": APP_ID, "tenant_key": "tk1"}  # fmt: skip

    def dump(filler: int) -> bytes:
        content = json.dumps({"text": "x" * filler})
        event = {"sender": sender, "message": message | {"content": content}}
        return json.dumps({"schema": "2.0", "header": header, "event": event}).encode()

    before, _, after = dump(SIZE - len(dump(0))).partition(event_id(0).encode())
    return before, after


def envelopes(numbers: Iterable[int], event_type: str = NOOP) -> Iterable[tuple[str, bytes]]:
    """Event ids with their envelopes."""
    before, after = around(event_type)
    for number in numbers:
        name = event_id(number)
        yield name, before + name.encode() + after


def stamped(number: int, event_type: str = STAMP) -> tuple[str, bytes]:
    """An envelope that holds the time of its making in `event.sent`."""
    name = event_id(number)
    before, after = around(event_type)
    return name, before + name.encode() + after[:-2] + b', "sent": %.6f}}' % time.time()


def entry(name: str, envelope: bytes, event_type: str) -> Entry:
    """As the bridge writes it, untraced."""
    now = int(time.time() * 1000)
    return Entry(name, event_type, APP_ID, "tk1", "2.0", now, now, 1, "", "", envelope)


def add(client: redis.client.Pipeline | redis.Redis, item: Entry) -> None:
    """XADD to the stream of its type."""
    client.execute_command("XADD", KEYS.stream(item.event_type), "*", *item.fields())


def fill(client: redis.Redis, count: int, event_type: str) -> None:
    """Put `count` events of one type into their stream."""
    client.sadd(KEYS.types, event_type)
    for first in range(0, count, 1000):
        with client.pipeline(transaction=False) as pipeline:
            for name, envelope in envelopes(range(first, min(first + 1000, count)), event_type):
                add(pipeline, entry(name, envelope, event_type))
            pipeline.execute()


def acknowledged(client: redis.Redis, stream: str) -> int:
    """Entries that a stream's only group has read and acknowledged."""
    groups = client.xinfo_groups(stream) if client.exists(stream) else []
    return sum((group["entries-read"] or 0) - group["pending"] for group in groups)
