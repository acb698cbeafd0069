"""A minimal client of the long connection, written against the wire and not against `bridge`."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET
from flybridge.bridge.protocol import frames


def post(url: str, body: object) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, json.dumps(body).encode())  # noqa: S310 (our own server)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class Client:
    """One connection: receives frames, joins nothing, acks what it is told to."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def receive(self) -> frames.Frame:
        data = await asyncio.wait_for(self.ws.recv(), 5)
        assert isinstance(data, bytes)
        return frames.decode(data)

    async def ack(self, frame: frames.Frame, code: int = 200) -> None:
        frame.headers.add(key="biz_rt", value="3")
        frame.payload = json.dumps({"code": code}).encode()
        await self.ws.send(frames.encode(frame))

    async def ping(self) -> None:
        ping = frames.new(service=33_554_678, method=frames.CONTROL, headers={"type": "ping"})
        await self.ws.send(frames.encode(ping))

    async def ack_all(self) -> None:
        async for data in self.ws:
            assert isinstance(data, bytes)
            frame = frames.decode(data)
            if frame.method == frames.DATA:
                await self.ack(frame)


async def discover(
    url: str, app_id: str = APP_ID, app_secret: str = APP_SECRET
) -> tuple[int, dict[str, Any]]:
    body = {"AppID": app_id, "AppSecret": app_secret}
    return await asyncio.to_thread(post, f"{url}/callback/ws/endpoint", body)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    _, answer = await discover(url)
    async with connect(answer["data"]["URL"], compression=None, ping_interval=None) as ws:
        yield Client(ws)


@pytest.fixture(name="discover")
def discover_fixture() -> Callable[..., Awaitable[tuple[int, dict[str, Any]]]]:
    return discover


@pytest.fixture(name="connected")
def connected_fixture() -> Callable[[str], Any]:
    return connected
