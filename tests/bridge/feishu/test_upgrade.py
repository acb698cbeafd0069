"""The upgrade against servers that grant it, refuse it, or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from flybridge.bridge.errors import FeishuCrowded, FeishuError, FeishuRefused, FeishuUnavailable
from flybridge.bridge.feishu.upgrade import open_websocket, upgrade_refusal

PATIENCE = 5.0
LIMITS: dict[str, Any] = {"close_timeout": 1.0, "write_limit": 1024 * 1024}


class Feishu:
    """A server that grants the upgrade and says welcome, unless it has a `refusal`."""

    def __init__(self) -> None:
        self.port = 0
        self.refusal: tuple[int, dict[str, str]] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/v2?service_id=1&ticket=a-ticket"

    async def welcome(self, websocket: ServerConnection) -> None:
        await websocket.send("welcome")
        await websocket.wait_closed()

    def answer(self, websocket: ServerConnection, request: Request) -> Response | None:
        if self.refusal is None:
            return None
        status, headers = self.refusal
        response = websocket.respond(HTTPStatus(status), "no\n")
        for name, value in headers.items():
            response.headers[name] = value
        return response


@pytest.fixture
async def feishu(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feishu]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = Feishu()
    async with serve(
        server.welcome, "127.0.0.1", 0, process_request=server.answer, close_timeout=0.2
    ) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server


@pytest.mark.parametrize(
    ("status", "headers", "kind", "code"),
    [
        (
            HTTPStatus.FORBIDDEN,
            {"Handshake-Status": "514", "Handshake-Autherrcode": "1000040350"},
            FeishuCrowded,
            1000040350,
        ),
        (
            HTTPStatus.FORBIDDEN,
            {"handshake-status": "514", "handshake-autherrcode": "1"},
            FeishuUnavailable,
            1,
        ),
        (HTTPStatus.FORBIDDEN, {"Handshake-Status": "514"}, FeishuUnavailable, 514),
        (HTTPStatus.OK, {"Handshake-Status": "403", "Handshake-Msg": "no"}, FeishuRefused, 403),
        (HTTPStatus.BAD_REQUEST, {"Handshake-Status": "x"}, FeishuUnavailable, 400),
        (HTTPStatus.FORBIDDEN, {}, FeishuUnavailable, 403),
        (HTTPStatus.BAD_GATEWAY, {}, FeishuUnavailable, 502),
    ],
)
async def test_a_refused_upgrade_has_its_class(
    feishu: Feishu, status: int, headers: dict[str, str], kind: type[FeishuError], code: int
) -> None:
    feishu.refusal = (status, headers)
    with pytest.raises(FeishuError) as caught:
        await open_websocket(feishu.url, **LIMITS)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert "ticket" not in str(caught.value)


def test_a_refusals_text_is_bounded_and_printable() -> None:
    error = upgrade_refusal(403, {"Handshake-Status": "403", "Handshake-Msg": "\x1b[31m" * 999})
    assert len(str(error)) < 500
    assert "\x1b" not in str(error)


async def test_a_server_that_never_answers_the_upgrade_is_given_up_in_time() -> None:
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(FeishuUnavailable, match="no WebSocket"):
            async with asyncio.timeout(PATIENCE):
                await open_websocket(f"ws://127.0.0.1:{port}/", open_timeout=0.1, **LIMITS)
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


async def test_a_host_that_cannot_be_one_is_a_passing_fault() -> None:
    with pytest.raises(FeishuUnavailable, match="no WebSocket"):
        await open_websocket(f"wss://{'x' * 64}.test/", **LIMITS)


async def test_nobody_at_home_is_a_passing_fault() -> None:
    with pytest.raises(FeishuUnavailable, match="no WebSocket"):
        await open_websocket("ws://127.0.0.1:1/", **LIMITS)


async def test_the_secret_url_reaches_no_log_even_at_debug(
    feishu: Feishu, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    websocket = await open_websocket(feishu.url, **LIMITS)
    await websocket.close()
    logged = [record for record in caplog.records if record.name != "websockets.server"]
    assert not any("ticket" in record.getMessage() for record in logged)


async def test_the_proxy_of_the_environment_carries_the_socket(
    feishu: Feishu, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    piping: list[asyncio.Task[None]] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        there, back = await asyncio.open_connection("127.0.0.1", feishu.port)
        writer.write(b"HTTP/1.1 200 ok\r\n\r\n")
        piping.append(asyncio.create_task(pipe(reader, back)))
        await pipe(there, writer)

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        websocket = await open_websocket("ws://feishu.test/ws", **LIMITS)
        assert await websocket.recv() == "welcome"
        await websocket.close()
        await asyncio.gather(*piping)
    assert asked[0].startswith(b"CONNECT feishu.test:80 ")
