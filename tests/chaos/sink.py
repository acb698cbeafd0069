"""A collector of traces that takes everything and keeps nothing, over HTTP. It decodes no span."""

from __future__ import annotations

import asyncio
from contextlib import suppress

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


async def serve() -> asyncio.Server:
    """Start it on a free port of loopback."""
    return await asyncio.start_server(_swallow, "127.0.0.1", 0)


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            writer.write(_ANSWER)
    writer.close()
