"""The pipe's times on a real server, which answers when the test has it answer."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import TimeoutError

from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.raw_pipeline import RawPipeline, pack

PING, WAIT = pack("PING"), pack("WAIT", 1, 150)


async def test_the_last_answer_may_take_longer_and_only_the_last(real_redis: Redis) -> None:
    pipe = RawPipeline(real_redis.connection_pool)
    assert await pipe.send([PING, WAIT], 0.05, last=1.0) == [b"PONG", 0]
    first, second = await pipe.send([WAIT, PING], 0.05, last=1.0)
    assert (type(first), type(second)) == (TimeoutError, TimeoutError)
    assert await pipe.send([PING], 0.05) == [b"PONG"]
    await pipe.close()


async def test_a_time_that_was_over_while_the_loop_stood_still_is_over(
    server: Callable[[], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = server()
    client = async_client(server.url)  # type: ignore[attr-defined]
    pipe = RawPipeline(client.connection_pool)
    assert await pipe.send([PING], 1.0) == [b"PONG"]
    write = Connection._send_packed_command

    async def standing(connection: Connection, *commands: Any) -> None:
        await write(connection, *commands)
        time.sleep(0.1)  # noqa: ASYNC251  the loop, and with it the pipe's timeout

    monkeypatch.setattr(Connection, "_send_packed_command", standing)
    process.send_signal(signal.SIGSTOP)
    (answer,) = await asyncio.wait_for(pipe.send([PING], 0.05), 1.0)
    process.send_signal(signal.SIGCONT)
    assert isinstance(answer, TimeoutError)
    await pipe.close()
    await client.aclose()
