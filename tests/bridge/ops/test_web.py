"""A server for strangers: half requests, floods, slow readers and nonsense cost it little."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from flybridge.bridge.ops.web import MAX_CONNECTIONS as MOST
from flybridge.bridge.ops.web import MOST_HEADERS, Acceptor, serving_strangers

HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: "
HOME = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def home(request: object) -> PlainTextResponse:
    return PlainTextResponse("home")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = Starlette(routes=[Route("/", home)])
    async with serving_strangers(app, "127.0.0.1", 0) as bound:
        yield bound


async def ask(port: int, request: bytes) -> bytes:
    """Send it, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        writer.write(request)
        answer = await reader.read()
    writer.close()
    return answer


@asynccontextmanager
async def half_requests(port: int, count: int, address: str = "127.0.0.1") -> AsyncIterator[Any]:
    opened: list[Streams] = []
    for _ in range(count):
        streams = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        streams[1].write(HALF)
        opened.append(streams)
    try:
        yield opened
    finally:
        for _, writer in opened:
            writer.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed it, waited for a moment."""
    try:
        async with asyncio.timeout(2):
            return await reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HOME, b"200"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", b"200"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000, b"405"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, b"400"),
        (b"\x00\xff" * 100 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET /" + b"a" * MOST_HEADERS, b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"200"),
    ],
)
async def test_each_connection_is_good_for_one_answer_and_no_log_line(
    port: int, request_: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await ask(port, request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer.lower()
    assert caplog.records == []


async def test_the_loggers_of_a_program_that_uvicorn_serves_are_left_alone() -> None:
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]

    def settings() -> list[object]:
        return [(each.level, each.propagate, list(each.handlers)) for each in loggers]

    before = settings()
    async with serving_strangers(Starlette(), "127.0.0.1", 0):
        assert settings() == before


async def test_a_mistake_of_ours_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: object) -> PlainTextResponse:
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/", broken)])
    async with serving_strangers(app, "127.0.0.1", 0) as port:
        assert (await ask(port, HOME)).startswith(b"HTTP/1.1 500")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_requests_in_a_row_get_the_first_answered(port: int) -> None:
    answer = await ask(port, HOME * 1000)
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_half_requests_keep_nobody_out_and_are_told_of_once(port: int) -> None:
    with capture_logs() as logs:
        before = len(os.listdir("/proc/self/fd"))
        async with half_requests(port, 3 * MOST) as opened:
            assert b"home" in await ask(port, HOME)
            assert [await ended(reader) for reader, _ in opened[: 2 * MOST]] == [True] * 2 * MOST
            assert len(os.listdir("/proc/self/fd")) <= before + 3 * MOST + MOST
    assert [line["event"] for line in logs] == ["web.crowded"]


async def test_who_has_the_most_connections_makes_room(port: int) -> None:
    async with (
        half_requests(port, 2, "127.0.0.2") as others,
        half_requests(port, 2 * MOST) as greedy,
    ):
        assert await ended(greedy[0][0])
        for _, writer in others:
            writer.write(b"x\r\n\r\n")
        for reader, _ in others:
            assert b"home" in await reader.read()


class Silent(asyncio.Protocol):
    """Never answers."""


@asynccontextmanager
async def accepting(**bounds: Any) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        task = asyncio.create_task(Acceptor(listener, Silent, **bounds).run())
        try:
            yield listener.getsockname()[1]
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_nobody_stays_longer_than_a_lifetime() -> None:
    async with accepting(lifetime=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        writer.close()


async def test_without_file_descriptors_it_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [0]

    async def fail(listener: Any) -> Any:
        if failures[0] < 3:
            failures[0] += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", fail)
    monkeypatch.setattr("flybridge.bridge.ops.web.FAILURE_PAUSE", 0.001)
    with capture_logs() as logs:
        async with accepting(lifetime=0.1) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ended(reader)
            writer.close()
    assert [(line["event"], line["error"]) for line in logs] == [
        ("web.accept_failed", "Too many open files")
    ]
