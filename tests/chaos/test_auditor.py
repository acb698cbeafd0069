"""The auditor itself: what Redis gave it and the network lost, it reads again."""

from __future__ import annotations

import redis

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Keys
from tests.chaos.auditor import Auditor
from tests.chaos.proxy import Command, CutProxy
from tests.waiting import eventually


async def test_an_entry_whose_reply_was_lost_is_seen() -> None:
    keys = Keys("chaos")

    with EmbeddedRedis() as server, redis.Redis(port=server.port) as client:

        def add(event_id: str) -> None:
            client.sadd(keys.types, "chaos.plain")
            client.xadd(keys.stream("chaos.plain"), {"event_id": event_id})

        def read_of_a_new_entry(command: Command) -> bool:
            if command[0] != b"XREADGROUP" or b">" not in command:
                return False
            add("lost")
            return True

        async with CutProxy("127.0.0.1", server.port) as proxy:
            with Auditor(lambda: proxy.port, keys, 0.0) as auditor:
                add("before")
                await eventually(lambda: auditor.entries)
                proxy.drop_reply(read_of_a_new_entry)
                await eventually(lambda: not proxy.armed)
                add("after")
                await eventually(lambda: len(auditor.entries) == 3)
