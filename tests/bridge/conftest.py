"""What the bridge's tests share: Redis servers, fake and real ones, and the command line."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
from click.testing import CliRunner, Result

from flybridge.bridge.cli import main
from flybridge.bridge.local.valkey import EmbeddedRedis, find_binary
from flybridge.bridge.store.client import async_client
from flybridge.bridge.store.streams import Keys
from flybridge.bridge.telemetry import logs
from tests.redis_servers import any_binary, redis_or_skip

LASTING = ("--save", "", "--appendonly", "yes", "--loglevel", "warning")


class FakeRedis(fakeredis.FakeAsyncRedis):
    """fakeredis without Redis 7's script flags: what follows `#!lua` is a comment to it."""

    async def eval(self, script: str, *arguments: Any, **options: Any) -> Any:
        return await super().eval(script.replace("#!lua", "--", 1), *arguments, **options)


@pytest.fixture
def keys() -> Keys:
    return Keys("cli_test")


@pytest.fixture(scope="session")
def real_binary() -> str:
    """Of Redis, or of Valkey where this machine has no Redis."""
    return any_binary()


@pytest.fixture(scope="session")
def real_url(real_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from run_server(real_binary, tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of Redis; where this machine has none, the test is skipped."""
    yield from run_server(redis_or_skip(), tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from run_server(find_binary(), tmp_path_factory.mktemp("valkey"))


@pytest.fixture(params=["fake", "redis", "valkey"])
async def any_redis(request: pytest.FixtureRequest) -> AsyncIterator[redis.asyncio.Redis]:
    """An empty database of each kind of server in turn."""
    if request.param == "fake":
        client: redis.asyncio.Redis = FakeRedis(server_type="redis", version=(7, 0))
    else:
        client = async_client(request.getfixturevalue(f"{request.param}_url"))
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def real_redis(real_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = async_client(real_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def fake_redis() -> AsyncIterator[redis.asyncio.Redis]:
    client = FakeRedis(server_type="redis", version=(7, 0))
    yield client
    await client.aclose()


@pytest.fixture
def server(real_binary: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a server of the test's own, on the same port each time; ended with the test."""
    started: list[subprocess.Popen[bytes]] = []
    port = free_port()

    def start() -> subprocess.Popen[bytes]:
        process = start_server(real_binary, port, tmp_path)
        started.append(process)
        return process

    start.url = f"redis://127.0.0.1:{port}/0"  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set, neither in the environment nor by a `.env` in the working directory."""
    for name in [name for name in os.environ if name.startswith("FLYBRIDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def flybridge(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`flybridge("dlq", "list")`: run the command in this process; logging is left alone."""
    monkeypatch.setattr(logs, "configure", lambda *args, **options: None)
    # As on a terminal.
    monkeypatch.setenv("FLYBRIDGE_LOG_FORMAT", "console")

    def invoke(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(main.cli, arguments, prog_name="flybridge", **options)

    return invoke


@pytest.fixture(scope="module")
def embedded_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as embedded:
        yield embedded


@pytest.fixture
def cli_redis(
    embedded_redis: EmbeddedRedis, no_settings: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[redis.Redis]:
    """An empty Redis, which `flybridge` uses too, for the app `cli_test`."""
    monkeypatch.setenv("FLYBRIDGE_APP_ID", "cli_test")
    monkeypatch.setenv("FLYBRIDGE_REDIS_URL", embedded_redis.url)
    with redis.Redis.from_url(embedded_redis.url, protocol=2) as client:
        client.flushall()
        yield client


def run_server(binary: str, folder: Path) -> Iterator[str]:
    port = free_port()
    process = start_server(binary, port, folder)
    yield f"redis://127.0.0.1:{port}/0"
    process.kill()
    process.wait()


def start_server(binary: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """A server with an append-only file in the folder, up and answering."""
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *LASTING],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    with redis.Redis(port=port) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return process
    process.kill()
    raise AssertionError(f"{binary} did not answer on port {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
