"""Redis commands per event at full load, bridge and worker together, those in scripts apart."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from contextlib import ExitStack

import events
import push
from contenders import CeleryList, Flybridge, Setup
from harness import Line, Options, private_redis, reach, table

COUNT = 20_000
PEER_COUNT = 4_000
REQUIRED = 1.5
SCRIPTS = ("evalsha", "eval", "fcall")
SHOWN = 0.005
"""Commands per event below which a command gets no line of its own."""


class Monitor:
    """Everything that Redis runs, from `with` to its end.

    MONITOR alone tells the commands inside scripts from those of clients; COMMANDSTATS adds both.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Monitor:
        self._socket.sendall(b"MONITOR\r\n")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """How often each command was run by clients, and by scripts."""
        plain: Counter[str] = Counter()
        scripted: Counter[str] = Counter()
        for line in b"".join(self._chunks).split(b"\r\n"):
            where, _, rest = line.partition(b'] "')
            if rest:
                name = rest.partition(b'"')[0].decode().lower()
                (scripted if where.endswith(b"lua") else plain)[name] += 1
        return plain, scripted

    def _read(self) -> None:
        while data := self._socket.recv(1 << 20):
            self._chunks.append(data)


def measure(options: Options) -> None:
    """Print totals, then each command."""
    share = 4 if options.quick else 1
    count, peer_count = COUNT // share, PEER_COUNT // share
    plain, scripted = _ours(count)
    calls = sum(plain.pop(name, 0) for name in SCRIPTS)
    per_event = sum(plain.values()) / count
    peer_plain, peer_scripted = _peer(peer_count)
    peer = sum(peer_plain.values()) / peer_count
    table("Redis commands per event, bridge + worker (prefork x2)", "per event", [
        Line("flybridge, plain commands", [per_event], required=REQUIRED, most=True),
        Line("flybridge, script calls", [calls / count]),
        Line("flybridge, commands run inside scripts", [sum(scripted.values()) / count]),
        Line("celery list, plain commands (filled by copies: +1 LPUSH)", [peer]),
        Line("celery list, inside scripts", [sum(peer_scripted.values()) / peer_count]),
    ])  # fmt: skip
    for title, counted in (("plain", plain), ("inside scripts", scripted)):
        _each(f"flybridge, {title}", counted, count)
    _each("celery list", peer_plain, peer_count)


def _each(title: str, counted: Counter[str], count: int) -> None:
    shares = [(name, times / count) for name, times in counted.most_common()]
    lines = [Line(name, [each]) for name, each in shares if each >= SHOWN]
    if lines:
        table(title, "per event", lines)


def _ours(count: int) -> tuple[Counter[str], Counter[str]]:
    stream = events.KEYS.stream(events.NOOP)
    with ExitStack() as stack:
        server, client = stack.enter_context(private_redis())
        setup = Setup(server.url, client)
        worker = stack.enter_context(Flybridge().start(setup))
        # Its group is there once it reads.
        reach(lambda: len(client.xinfo_groups(stream)) if client.exists(stream) else 0, 1, worker)
        sender = stack.enter_context(push.sender(count))
        with Monitor(server.port) as monitor:
            stack.enter_context(push.bridge(server.url, push.port(sender)))
            reach(lambda: events.acknowledged(client, stream), count, worker, every=0.2)
        return _without_ours(monitor)


def _peer(count: int) -> tuple[Counter[str], Counter[str]]:
    with private_redis() as (server, client):
        setup = Setup(server.url, client)
        contender = CeleryList()
        contender.fill(setup, count)
        with Monitor(server.port) as monitor, contender.start(setup) as worker:
            reach(lambda: contender.done(setup, count), count, worker, every=0.2)
        return _without_ours(monitor)


def _without_ours(monitor: Monitor) -> tuple[Counter[str], Counter[str]]:
    """The counts, less what this benchmark itself asked."""
    plain, scripted = monitor.counts()
    for name in ("exists", "xinfo", "llen", "hlen"):
        plain.pop(name, None)
    return plain, scripted
