"""The local Feishu as a gateway of the text dialect, and the bridge's connection to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flybridge.bridge.errors import FeishuRefused
from flybridge.bridge.feishu.connection import Connection, connect
from flybridge.bridge.feishu.discovery import discover
from flybridge.bridge.local.feishu import text
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET, LocalFeishu
from flybridge.bridge.protocol import text_codec
from flybridge.bridge.protocol.delivery import Delivery, Rejected
from flybridge.bridge.protocol.envelope import header
from flybridge.bridge.protocol.text_conversation import TextDialect
from flybridge.handlers.samples import sample
from tests.bridge.stand_ins import Receiver
from tests.waiting import eventually

PATIENCE = 5.0
V1, V2 = "approval_instance", "im.message.receive_v1"


class Bridge(Receiver):
    """A connection that runs, and what it delivered."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.running = asyncio.create_task(connection.run(self))
        self.rejected: asyncio.Queue[Rejected] = asyncio.Queue()
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()

    def on_delivery(self, delivery: Delivery) -> None:
        self._deliveries.put_nowait(delivery)

    def on_rejected(self, rejected: Rejected) -> None:
        self.rejected.put_nowait(rejected)

    async def next(self) -> Delivery:
        async with asyncio.timeout(PATIENCE):
            return await self._deliveries.get()


@asynccontextmanager
async def bridging(feishu: LocalFeishu, **options: Any) -> AsyncIterator[Bridge]:
    endpoint = await discover(feishu.url, APP_ID, APP_SECRET)
    async with connect(endpoint, text_dialect=TextDialect(**options)) as opened:
        bridge = Bridge(opened)
        yield bridge
    await asyncio.gather(bridge.running, return_exceptions=True)


@pytest.mark.parametrize(("name", "schema"), [(V1, "1.0"), (V2, "2.0")])
async def test_an_event_in_text_is_delivered_with_an_envelope_that_the_bridge_reads(
    name: str, schema: str
) -> None:
    async with LocalFeishu(text_dialect=True) as feishu, bridging(feishu) as bridge:
        push = feishu.push(sample(name, event_id="e1"))
        delivery = await bridge.next()
        bridge.connection.ack(delivery, 200)
        assert await push.wait(PATIENCE)
    found = header(delivery.payload)
    assert (found.event_id, found.event_type, found.schema) == ("e1", name, schema)
    expected = header(push.payload)
    assert (found.app_id, found.tenant_key) == (expected.app_id, expected.tenant_key)
    assert found.created_at // 1000 == expected.created_at // 1000
    assert feishu.stats["unexpected_acks"] == 0


async def test_pings_are_answered_and_the_next_ones_are_text() -> None:
    async with LocalFeishu(text_dialect=True) as feishu, bridging(feishu) as bridge:
        heartbeat = bridge.connection.conversation.heartbeat
        await eventually(lambda: heartbeat.total == 1)
        assert feishu.stats["ignored"] == 1, "Feishu's own ping means nothing here"
        assert isinstance(bridge.connection.conversation.ping(0.0), str)


async def test_with_the_right_token_events_come_and_with_none_they_do_not() -> None:
    async with LocalFeishu(text_dialect=True, text_token="t-1") as feishu:
        async with bridging(feishu) as bridge:
            push = feishu.push(sample(V2, event_id="e1"))
            await eventually(lambda: bridge.connection.conversation.last_pong is not None)
            await eventually(lambda: bool(push.attempts))
            assert push.attempts[0].ending == "unreachable"
        async with bridging(feishu, token="t-1") as bridge:
            assert header((await bridge.next()).payload).event_id == "e1"
            assert bridge.connection.conversation.counts["auth"] == 1


async def test_with_the_wrong_token_the_connection_is_refused() -> None:
    async with (
        LocalFeishu(text_dialect=True, text_token="t-1") as feishu,
        bridging(feishu, token="t-2") as bridge,
    ):
        with pytest.raises(FeishuRefused, match="invalid token") as caught:
            async with asyncio.timeout(PATIENCE):
                await bridge.running
    assert caught.value.code == text.TOKEN_INVALID


async def test_unreadable_bytes_are_sent_as_the_text_they_are_not() -> None:
    async with LocalFeishu(text_dialect=True) as feishu, bridging(feishu) as bridge:
        feishu.push(b"\xff no json")
        async with asyncio.timeout(PATIENCE):
            found = await bridge.rejected.get()
    assert (found.reason, found.payload) == ("invalid", "\ufffd no json".encode())


def test_the_dialect_tells_the_time_in_seconds() -> None:
    payload = json.dumps(sample(V2, event_id="e1")).encode()
    data = json.loads(text.event(payload))["data"]
    assert (data["event_id"], data["event_type"]) == ("e1", V2)
    assert data["create_time"] == header(payload).created_at // 1000


def test_what_a_client_says_is_read_or_nothing() -> None:
    assert text.read('{"type":"ping"}') == text_codec.Ping()
    assert text.read("no JSON") is None
