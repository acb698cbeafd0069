from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flybridge.bridge.errors import (
    FeishuBusy,
    FeishuCrowded,
    FeishuError,
    FeishuRefused,
    FeishuUnavailable,
)
from flybridge.bridge.feishu import discovery
from flybridge.bridge.feishu.discovery import MAX_REFUSALS, Endpoint, discover
from flybridge.bridge.protocol.server_config import ClientConfig

SECRET = "s3cr3t-of-the-app"
URL = (
    "wss://msg-frontier.feishu.cn/ws/v2?fpid=493&aid=552564&device_id=7123456789"
    "&access_key=0123abcd&service_id=33554678&ticket=a-ticket"
)
GOOD = {
    "code": 0,
    "msg": "ok",
    "data": {"URL": URL, "ClientConfig": {"PingInterval": 90, "ReconnectCount": 1}},
}


class Server:
    """Answers every request with the same bytes, and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answer = b""
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.hang = asyncio.Event()

    def respond(self, body: bytes | object, status: int = 200) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
        self.answer = head.encode() + raw

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        self.asked.set()
        if not self.answer:
            await self.hang.wait()
        writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        server.hang.set()
        listening.close()
        await listening.wait_closed()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with serving() as started:
        yield started


async def ask(server: Server, **options: Any) -> Endpoint:
    return await discover(server.url, "cli_1", SECRET, **options)


async def refused(server: Server, **options: Any) -> FeishuError:
    with pytest.raises(FeishuError) as caught:
        await ask(server, **options)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


async def test_it_asks_as_feishu_wants_to_be_asked(server: Server) -> None:
    server.respond(GOOD)
    await ask(server)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /callback/ws/endpoint HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert b"locale: zh" in head.lower()
    assert json.loads(body) == {"AppID": "cli_1", "AppSecret": SECRET}


async def test_the_answer_is_an_endpoint(server: Server) -> None:
    server.respond(GOOD)
    found = await ask(server, config=ClientConfig(reconnect_interval=7))
    assert (found.url, found.service_id, found.device_id) == (URL, 33554678, "7123456789")
    assert found.config == ClientConfig(7, 90)


async def test_its_repr_keeps_the_secrets_of_the_url(server: Server) -> None:
    server.respond(GOOD)
    shown = repr(await ask(server))
    assert "msg-frontier.feishu.cn" in shown
    assert not any(secret in shown for secret in ("0123abcd", "a-ticket", "?"))


@pytest.mark.parametrize(
    ("code", "kind", "cure"),
    [
        (1, FeishuUnavailable, "busy"),
        (1000040343, FeishuUnavailable, "internal"),
        (1000040344, FeishuRefused, "FLYBRIDGE_APP_SECRET"),
        (1000040345, FeishuBusy, "console"),
        (1000040346, FeishuRefused, "FLYBRIDGE_APP_ID"),
        (1000040350, FeishuCrowded, "other long-connection clients"),
        (1000040351, FeishuRefused, "FLYBRIDGE_DOMAIN"),
        (99991663, FeishuBusy, "unknown"),
        (-1, FeishuBusy, "unknown"),
    ],
)
async def test_every_result_code_has_its_class_and_its_cure(
    server: Server, code: int, kind: type[FeishuError], cure: str
) -> None:
    server.respond({"code": code, "msg": f"what Feishu says, even {SECRET}"})
    error = await refused(server)
    assert (type(error), error.code) == (kind, code)
    assert cure in str(error)
    assert "what Feishu says" in str(error)


async def test_a_known_code_counts_more_than_the_http_status_around_it(server: Server) -> None:
    server.respond({"code": 1000040351, "msg": "Incorrect domain name"}, 400)
    assert type(await refused(server)) is FeishuRefused


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusing_status_is_a_bad_day_until_it_goes_on(server: Server, status: int) -> None:
    server.respond(b"<html>", status)
    first = await refused(server)
    assert (type(first), first.code) == (FeishuUnavailable, status)
    last = await refused(server, refusals=MAX_REFUSALS - 1)
    assert (type(last), last.code) == (FeishuBusy, status)
    assert "FLYBRIDGE_APP_SECRET" in str(last)


@pytest.mark.parametrize("status", [500, 502, 404])
async def test_other_statuses_never_stop_being_a_bad_day(server: Server, status: int) -> None:
    server.respond(b"", status)
    assert type(await refused(server, refusals=99)) is FeishuUnavailable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>captive portal</html>",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"code":"0"}',
        b'{"code":[0]}',
        b'{"code":0}',
        b'{"code":0,"data":[]}',
        b'{"code":0,"data":{"URL":""}}',
        b'{"code":0,"data":{"URL":5}}',
    ],
)
async def test_an_answer_that_is_none_is_a_passing_fault(server: Server, body: bytes) -> None:
    server.respond(body)
    assert type(await refused(server)) is FeishuUnavailable


@pytest.mark.parametrize(
    "url",
    [
        "https://msg-frontier.feishu.cn/ws?service_id=1",
        "ws://msg-frontier.feishu.cn/ws?service_id=1",
        "ws://10.0.0.1/ws?service_id=1",
        "wss:///ws?service_id=1",
        "wss://[bad/ws?service_id=1",
        "wss://host/ws",
        "wss://host/ws?service_id=x",
        "wss://host/ws?service_id=-1",
        "wss://host/ws?service_id=2147483648",
    ],
)
async def test_a_url_that_is_not_ours_to_open_is_refused(server: Server, url: str) -> None:
    server.respond({"code": 0, "data": {"URL": url + "&ticket=a-ticket"}})
    error = await refused(server)
    assert type(error) is FeishuUnavailable
    assert "ticket" not in str(error)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.8.8.8", "[::1]:1", "localhost"])
async def test_a_bare_url_is_fine_on_this_machine(server: Server, host: str) -> None:
    server.respond({"code": 0, "data": {"URL": f"ws://{host}/ws?service_id=5"}})
    found = await ask(server)
    assert (found.service_id, found.device_id) == (5, "")


async def test_an_answer_without_end_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "MAX_ANSWER", 1000)
    server.respond(b" " * 100_000)
    assert "more than 1000 bytes" in str(await refused(server))


async def test_a_server_that_never_answers_is_given_up_in_time(server: Server) -> None:
    async with asyncio.timeout(5):
        error = await refused(server, timeout=0.1)
    assert type(error) is FeishuUnavailable
    assert "timed out" in str(error)


async def test_nobody_at_home_is_a_passing_fault(server: Server) -> None:
    server.url = "http://127.0.0.1:1"
    assert type(await refused(server)) is FeishuUnavailable


async def test_the_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.respond(GOOD)
    await discover("http://open.feishu.test", "cli_1", SECRET)
    assert server.requests[0].startswith(b"POST http://open.feishu.test/callback/ws/endpoint ")


async def test_no_proxy_is_used_for_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.respond(GOOD)
    assert (await ask(server)).url == URL


async def test_only_http_is_spoken() -> None:
    with pytest.raises(FeishuRefused, match="FLYBRIDGE_DOMAIN"):
        await discover("file:///etc", "cli_1", SECRET)


async def test_a_cancelled_discovery_leaves_at_once(server: Server) -> None:
    task = asyncio.create_task(ask(server))
    await server.asked.wait()
    task.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await task
