"""Connections that follow the primary, against a loopback server that says what it is told."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from flybridge.bridge.store.client import async_client, sync_client
from flybridge.bridge.store.failover import Primary, PrimaryLost, PrimaryUnknown
from flybridge.bridge.store.raw_pipeline import RawPipeline, pack
from flybridge.bridge.store.topology import parse

REFUSALS = [
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 127.0.0.1:6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN Hash slot not served",
]
BORNE = ["BUSY Redis is busy running a script.", "MISCONF Errors writing to the AOF file", "OOM no"]


class FakeServer:
    """Speaks RESP2; `answers` are looked up by the first word of a command."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {"HELLO": hello("master"), "PING": b"+PONG\r\n"}
        self.connections = 0
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                fake.connections += 1
                while head := self.rfile.readline():
                    words = [self._word() for _ in range(int(head[1:]))]
                    self.wfile.write(fake.answers.get(words[0].decode().upper(), b"+OK\r\n"))

            def _word(self) -> bytes:
                size = int(self.rfile.readline()[1:])
                return self.rfile.read(size + 2)[:-2]

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def name_primary(self, server: FakeServer) -> None:
        """Answer as a Sentinel does."""
        port = str(server.port).encode()
        self.answers["SENTINEL"] = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)


def hello(role: str) -> bytes:
    return b"*2\r\n$4\r\nrole\r\n$%d\r\n%s\r\n" % (len(role), role.encode())


@pytest.fixture
def serve() -> Iterator[Callable[[], FakeServer]]:
    servers: list[FakeServer] = []

    def serve() -> FakeServer:
        servers.append(FakeServer())
        return servers[-1]

    yield serve
    for each in servers:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def old(serve: Callable[[], FakeServer]) -> FakeServer:
    return serve()


@pytest.fixture
def new(serve: Callable[[], FakeServer]) -> FakeServer:
    return serve()


@pytest.fixture
def sentinel(serve: Callable[[], FakeServer], old: FakeServer) -> FakeServer:
    sentinel = serve()
    sentinel.name_primary(old)
    return sentinel


def url(*seeds: int) -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in seeds)}/m"


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_command_goes_to_the_new_primary_in_the_same_call(
    sentinel: FakeServer, old: FakeServer, new: FakeServer, refusal: str
) -> None:
    with sync_client(url(sentinel.port)) as client:
        assert client.execute_command("XADD")
        old.answers["XADD"] = f"-{refusal}\r\n".encode()
        sentinel.name_primary(new)
        assert client.execute_command("XADD")
    assert new.connections == 1


async def test_so_it_does_on_the_event_loop(
    sentinel: FakeServer, old: FakeServer, new: FakeServer
) -> None:
    async with async_client(url(sentinel.port)) as client:
        assert await client.execute_command("XADD")
        old.answers["XADD"] = f"-{REFUSALS[0]}\r\n".encode()
        sentinel.name_primary(new)
        assert await client.execute_command("XADD")
    assert new.connections == 1


def test_a_refusal_inside_a_pipeline_repeats_the_pipeline_at_the_new_primary(
    sentinel: FakeServer, old: FakeServer, new: FakeServer
) -> None:
    old.answers["EVALSHA"] = f"-{REFUSALS[0]}\r\n".encode()
    with sync_client(url(sentinel.port)) as client, client.pipeline(transaction=False) as pipeline:
        client.ping()
        sentinel.name_primary(new)
        pipeline.execute_command("PING").execute_command("EVALSHA")
        assert len(pipeline.execute(raise_on_error=False)) == 2
    assert new.connections == 1


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_pipe_gives_the_whole_batch_up_and_connects_anew(
    old: FakeServer, refusal: str
) -> None:
    async with async_client(f"redis://127.0.0.1:{old.port}") as client:
        pipe = RawPipeline(client.connection_pool)
        old.answers["XADD"] = f"-{refusal}\r\n".encode()
        answers = await pipe.send([pack("PING"), pack("XADD"), pack("XADD")], timeout=2.0)
        assert [type(each) for each in answers[1:]] == [PrimaryLost, PrimaryLost]
        await pipe.send([pack("PING")], timeout=2.0)
        await pipe.close()
    assert old.connections == 2


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_plain_url_connects_anew_after_a_refusal_and_says_what_it_was(
    old: FakeServer, refusal: str
) -> None:
    old.answers["XADD"] = f"-{refusal}\r\n".encode()
    with sync_client(f"redis://127.0.0.1:{old.port}", retries=0) as client:
        for _ in range(2):
            with pytest.raises(ConnectionError, match=refusal.split()[0]):
                client.execute_command("XADD")
    assert old.connections == 2


@pytest.mark.parametrize("refusal", BORNE)
def test_a_server_that_is_only_unwell_keeps_its_connection(old: FakeServer, refusal: str) -> None:
    old.answers["XADD"] = f"-{refusal}\r\n".encode()
    with sync_client(f"redis://127.0.0.1:{old.port}") as client:
        for _ in range(2):
            answer: Any = client.pipeline(transaction=False).execute_command("XADD").execute(False)
            assert isinstance(answer[0], Exception)
    assert old.connections == 1


def test_a_primary_that_seeds_still_name_but_is_a_replica_now_is_not_read_from(
    sentinel: FakeServer, old: FakeServer
) -> None:
    old.answers["HELLO"] = hello("replica")
    with (
        sync_client(url(sentinel.port)) as client,
        pytest.raises(PrimaryLost, match="is a replica"),
    ):
        client.execute_command("SMEMBERS")


def test_a_dead_seed_and_one_that_knows_nothing_are_passed_over(
    serve: Callable[[], FakeServer], sentinel: FakeServer, old: FakeServer
) -> None:
    ignorant = serve()
    ignorant.answers["SENTINEL"] = b"*-1\r\n"
    primary = Primary(parse(url(1, ignorant.port, sentinel.port)), "cli_a1")

    assert primary.find() == ("127.0.0.1", old.port)
    assert asyncio.run(primary.find_async()) == ("127.0.0.1", old.port)


def test_each_search_begins_with_another_seed(
    serve: Callable[[], FakeServer], sentinel: FakeServer, old: FakeServer, new: FakeServer
) -> None:
    cut_off, sentinel_of_most = sentinel, serve()
    cut_off.name_primary(old)
    sentinel_of_most.name_primary(new)
    primary = Primary(parse(url(cut_off.port, sentinel_of_most.port)), "cli_a1")

    assert {primary.find()[1], primary.find()[1]} == {old.port, new.port}


async def test_a_search_that_is_cut_short_goes_on_with_the_next_seed(
    sentinel: FakeServer, old: FakeServer
) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.read()

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        primary = Primary(parse(url(port, sentinel.port)), "cli_a1")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(primary.find_async(), 0.05)
        assert await asyncio.wait_for(primary.find_async(), 1.0) == ("127.0.0.1", old.port)


async def test_searches_at_the_same_time_ask_every_seed_each(
    sentinel: FakeServer, old: FakeServer
) -> None:
    primary = Primary(parse(url(1, sentinel.port)), "cli_a1")
    found = await asyncio.gather(*(primary.find_async() for _ in range(4)))
    assert found == [("127.0.0.1", old.port)] * 4


def test_a_service_that_no_sentinel_knows_is_named(sentinel: FakeServer) -> None:
    sentinel.answers["SENTINEL"] = b"*-1\r\n"
    with pytest.raises(PrimaryUnknown, match=r"no Sentinel names a primary \(m is unknown"):
        Primary(parse(url(sentinel.port)), "a").find()


def test_why_nobody_answers_is_said_without_the_password() -> None:
    primary = Primary(parse("redis+sentinel://u:hush@127.0.0.1:1/m?sentinel_password=hush"), "a")

    with pytest.raises(PrimaryUnknown, match=r"127\.0\.0\.1:1\. .*refused") as caught:
        primary.find()
    assert "hush" not in f"{caught.value}{primary!r}"


def test_a_cluster_without_an_app_id_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="app id"):
        sync_client("redis+cluster://a")
