"""A URL that is mistaken in how its port speaks: one sentence, soon, that names the mistake."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flybridge.bridge.errors import RedisUnreachable
from flybridge.bridge.store import redis_port
from flybridge.bridge.store.client import (
    async_client,
    check_port,
    check_server,
    check_server_sync,
    sync_client,
)


@contextlib.contextmanager
def listening(certificate: Path | None = None, says: bytes = b"") -> Iterator[int]:
    """A port on which somebody accepts every connection, by TLS if there is a certificate."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    connection.sendall(says)
                    if context:
                        with contextlib.suppress(OSError):
                            kept.append(context.wrap_socket(connection, server_side=True))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH; install it to run the tests of TLS")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_port, "ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr(redis_port, "OTHER_ANSWER_TIMEOUT", 0.5)


async def said_by_both(url: str) -> str:
    """What both clients say, which is the same, and within seconds."""
    began = time.monotonic()
    with sync_client(url) as blocking, pytest.raises(RedisUnreachable) as caught:
        check_server_sync(blocking)
    async with async_client(url) as client:
        with pytest.raises(RedisUnreachable) as again:
            await check_server(client)
    assert str(caught.value) == str(again.value)
    assert time.monotonic() - began < 4
    return str(caught.value)


async def test_tls_where_redis_speaks_plainly(real_url: str) -> None:
    said = await said_by_both(real_url.replace("redis://", "rediss://u:secret@"))
    assert "does not speak TLS; give redis:// instead of rediss:// in FLYBRIDGE_REDIS_URL" in said
    assert "secret" not in said


async def test_plainly_where_redis_speaks_tls(certificate: Path) -> None:
    with listening(certificate) as port:
        said = await said_by_both(f"redis://127.0.0.1:{port}/0")
    assert "speaks TLS; give rediss:// instead of redis:// in FLYBRIDGE_REDIS_URL" in said


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_who_never_answers(scheme: str) -> None:
    with listening() as port:
        said = await said_by_both(f"{scheme}://127.0.0.1:{port}/0")
    assert "accepts connections and does not answer; check that it is Redis" in said


async def test_who_is_no_redis() -> None:
    with listening(says=b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        said = await said_by_both(f"redis://127.0.0.1:{port}/0")
    assert "is no Redis; check host and port in FLYBRIDGE_REDIS_URL" in said


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis+sentinel"])
def test_one_seed_of_several_may_be_mistaken(scheme: str) -> None:
    with listening() as port:
        path = "/m" if scheme.endswith("sentinel") else ""
        with (
            sync_client(f"{scheme}://127.0.0.1:{port}{path}", app_id="a") as client,
            pytest.raises(RedisUnreachable, match="does not answer"),
        ):
            check_port(client)
        several = f"{scheme}://127.0.0.1:{port},127.0.0.1:1{path}"
        with sync_client(several, app_id="a") as client:
            check_port(client)


def test_who_speaks_as_the_url_says_is_left_alone(real_url: str, certificate: Path) -> None:
    with sync_client(real_url) as client:
        check_port(client)
    with listening(certificate) as port, sync_client(f"rediss://127.0.0.1:{port}") as client:
        check_port(client)


def test_a_port_on_which_nobody_listens_is_anothers_business() -> None:
    with sync_client("redis://127.0.0.1:1") as client:
        check_port(client)
