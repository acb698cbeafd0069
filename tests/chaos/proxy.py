"""A TCP proxy that makes trouble on request, between one actor and Redis or Feishu.

It listens on one port for each of its upstreams. Where one of them tells the actor of another, the
actor is told the proxy's port for it: it follows Sentinels and a Cluster without leaving the proxy.

It runs in the event loop of the test. What it can do, and to which connections:

    cut()                 all are reset (RST)
    refuse() / accept()   all are reset, new ones refused / taken again; `refuse(port)`: those of
                          one upstream
    black_hole() / pass_on()  all stay open and carry nothing, new ones too / what was held arrives,
                          late; `cut()` before `pass_on()` loses what the actor sent or was sent
    strand()              those of now carry nothing for ever, and are not closed; new ones are well
    delay(seconds)        every chunk of up to 64 KiB waits, either way, one after the other
    retarget(port)        all are reset, new ones go there; for a proxy with one upstream

and for Redis only, command by command:

    drop_reply(match)     carried out, the reply lost, the connection reset
    drop_command(match)   never arrives, the connection reset
    answer(error, match)  not carried out, answered with this error
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from types import TracebackType
from typing import Self

import kombu.transport.redis
import redis.lock

from flybridge.bridge.store.scripts import ROOT, load
from tests.chaos.conversation import Command, Conversation, Fate, Step, Verdict

CHUNK = 65_536
"""Bytes taken at once."""

ALWAYS_ANSWERED = frozenset(
    ["AUTH", "HELLO", "SELECT", "CLIENT SETINFO", "CLIENT SETNAME", "CLIENT MAINT_NOTIFICATIONS",
     "MULTI", "EXEC", "DISCARD", "SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"]
)  # fmt: skip
"""Not refused by an `answer` for all commands: Redis answers them even while it loads."""

Match = str | Callable[[Command], bool]
"""`XADD`, `XGROUP CREATE`, `XGROUP` (all of them), `EVALSHA claim`, `EVALSHA`, or a test of one's
own over the command's words."""

_LIBRARIES = {
    "lock.release": redis.lock.Lock.LUA_RELEASE_SCRIPT,
    "lock.extend": redis.lock.Lock.LUA_EXTEND_SCRIPT,
    "lock.reacquire": redis.lock.Lock.LUA_REACQUIRE_SCRIPT,
    "kombu.refresh": kombu.transport.redis.REFRESH_BINDING,
    "kombu.sweep": kombu.transport.redis.SWEEP_BINDINGS,
}
_RESET = struct.pack("ii", 1, 0)


@cache
def our_scripts() -> dict[str, str]:
    """sha -> name of every Lua script of the bridge, the workers and the libraries they use."""
    found = {_sha(text.encode()): name for name, text in _LIBRARIES.items()}
    for script in ROOT.glob("*/*/*.lua"):
        found[load(script.stem).sha] = script.stem
    return found


def _sha(script: bytes) -> str:
    return sha1(script, usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class _Drop:
    match: Match
    fate: Fate
    left: int


@dataclass(slots=True)
class _Door:
    """The port for one upstream."""

    upstream: int
    port: int
    reservation: socket.socket
    """Keeps the port ours while nobody listens on it."""
    listener: socket.socket | None = None


@dataclass(slots=True)
class _Connection:
    door: _Door
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    stranded: bool = False


class CutProxy:
    """`async with CutProxy(host, port) as proxy:` listens on `proxy.host`, `proxy.port`.

    Args:
        host: of the upstreams.
        ports: of each upstream.
        resp: understand Redis' protocol; False for anything else that runs over TCP.
        names: sha -> name of Lua scripts; None: those of the project.
    """

    def __init__(
        self, host: str, *ports: int, resp: bool = True, names: Mapping[str, str] | None = None
    ) -> None:
        self.host = "127.0.0.1"
        self.commands: Counter[str] = Counter()
        """Commands seen, by name."""
        self.dropped: Counter[str] = Counter()
        """Commands lost by `drop_reply` and `drop_command`."""
        self.answered: Counter[str] = Counter()
        """Commands that `answer` has refused."""
        self.reached: Counter[int] = Counter()
        """Connections taken, by the upstream's port."""
        self._upstream_host, self._upstream_ports = host, ports
        self._resp = resp
        self._names = our_scripts() if names is None else names
        self._drops: list[_Drop] = []
        self._answers: list[tuple[bytes, Match | None]] = []
        self._delay = 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._mistakes: list[BaseException] = []
        self._doors: list[_Door] = []

    async def __aenter__(self) -> Self:
        for port in self._upstream_ports:
            self._doors.append(self._made(port))
        self.accept()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = list(self._connections)
        self.refuse()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for door in self._doors:
            door.reservation.close()
        if self._mistakes:
            raise self._mistakes[0]

    @property
    def port(self) -> int:
        """For the first upstream."""
        return self._doors[0].port

    @property
    def ports(self) -> dict[int, int]:
        """Port of an upstream -> ours for it."""
        return {door.upstream: door.port for door in self._doors}

    @property
    def url(self) -> str:
        """For a Redis client."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def retarget(self, port: int) -> None:
        """Have new connections go there, and reset those to where it went before: like a VIP."""
        (door,) = self._doors
        door.upstream = port
        self.cut()

    def cut(self, upstream: int | None = None) -> None:
        """Reset all connections, or those to one upstream, both ends."""
        for connection in self._connections.values():
            if upstream in (None, connection.door.upstream):
                for writer in connection.writers:
                    _reset(writer)

    def refuse(self, upstream: int | None = None) -> None:
        """Reset all connections and refuse new ones until `accept`; or those to one upstream."""
        for door in self._doors:
            if door.listener is not None and upstream in (None, door.upstream):
                asyncio.get_running_loop().remove_reader(door.listener)
                door.listener.close()
                door.listener = None
        self.cut(upstream)

    def accept(self) -> None:
        """Take connections, to every upstream."""
        for door in self._doors:
            if door.listener is None:
                self._listen(door)

    def black_hole(self) -> None:
        """Carry nothing, either way, and close nothing: a half-open network."""
        self._passing.clear()

    def pass_on(self) -> None:
        """Carry on; what was sent meanwhile arrives now, unless `cut` was called before."""
        self._passing.set()

    def strand(self) -> None:
        """Forget the connections of now: as after a router lost its state, which says nothing."""
        for connection in self._connections.values():
            connection.stranded = True

    def delay(self, seconds: float) -> None:
        """Have every chunk wait so long, either way; 0: no more."""
        self._delay = seconds

    def drop_reply(self, match: Match, times: int = 1) -> None:
        """Have Redis carry a matching command out, and lose its reply with the connection."""
        self._drops.append(_Drop(match, Fate.LOSE_REPLY, times))

    def drop_command(self, match: Match, times: int = 1) -> None:
        """Reset the connection in place of passing a matching command on."""
        self._drops.append(_Drop(match, Fate.LOSE_COMMAND, times))

    def answer(self, error: bytes | None, match: Match | None = None) -> None:
        """Answer matching commands with this error (`-LOADING …`); None: end all such answers."""
        if error is None:
            self._answers.clear()
        else:
            self._answers.append((error.rstrip() + b"\r\n", match))

    @property
    def armed(self) -> Counter[Match]:
        """What is to be dropped and has not come yet; empty, and so false, when all has."""
        return Counter({drop.match: drop.left for drop in self._drops if drop.left})

    def disarm(self) -> None:
        """Forget what has not been dropped yet."""
        self._drops.clear()

    def _made(self, upstream: int) -> _Door:
        reservation = socket.socket()
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((self.host, 0))
        return _Door(upstream, reservation.getsockname()[1], reservation)

    def _listen(self, door: _Door) -> None:
        # asyncio turns Nagle off only where the protocol is named.
        door.listener = listener = socket.socket(proto=socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setblocking(False)
        listener.bind((self.host, door.port))
        listener.listen(128)
        asyncio.get_running_loop().add_reader(listener, self._on_connect, door, listener)

    def _on_connect(self, door: _Door, listener: socket.socket) -> None:
        if door.listener is not listener:
            return
        with suppress(BlockingIOError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._serve(accepted))
            self._connections[task] = _Connection(door)
            self.reached[door.upstream] += 1
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and (mistake := task.exception()):
            self._mistakes.append(mistake)

    async def _serve(self, accepted: socket.socket) -> None:
        connection = self._connections[asyncio.current_task()]  # type: ignore[index]
        writers = connection.writers
        try:
            from_client, to_client = await asyncio.open_connection(sock=accepted, limit=CHUNK)
            writers.append(to_client)
            await self._may_pass(connection)
            from_server, to_server = await asyncio.open_connection(
                self._upstream_host, connection.door.upstream, limit=CHUNK
            )
            writers.append(to_server)
            line = _Line(self._conversation(), to_server, to_client)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(connection, from_client, to_server, line.asked))
                pumps.create_task(self._pump(connection, from_server, to_client, line.answered))
        except* (OSError, _Over):
            pass
        finally:
            for writer in writers:
                _reset(writer)
            for writer in writers:
                with suppress(OSError):
                    await writer.wait_closed()

    async def _pump(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hear: Callable[[bytes], None],
    ) -> None:
        while data := await reader.read(CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._may_pass(connection)
            hear(data)
            await writer.drain()
        await self._may_pass(connection)
        writer.close()
        await writer.wait_closed()
        raise _Over

    async def _may_pass(self, connection: _Connection) -> None:
        await self._passing.wait()
        if connection.stranded:
            await asyncio.Event().wait()

    def _conversation(self) -> Conversation | None:
        return Conversation(self._judge, self._names, self.ports) if self._resp else None

    def _judge(self, command: Command, name: str) -> Verdict:
        self.commands[name] += 1
        for drop in self._drops:
            if drop.left and _matches(drop.match, command, name):
                drop.left -= 1
                self.dropped[name] += 1
                return drop.fate
        for error, match in self._answers:
            if _matches(match, command, name):
                self.answered[name] += 1
                return error
        return Fate.PASS


class _Over(Exception):
    """The connection has ended, or is to be reset."""


@dataclass(slots=True)
class _Line:
    """Both directions of one connection."""

    conversation: Conversation | None
    to_server: asyncio.StreamWriter
    to_client: asyncio.StreamWriter

    def asked(self, data: bytes) -> None:
        if self.conversation is None:
            self.to_server.write(data)
        else:
            self._do(self.conversation.asked(data))

    def answered(self, data: bytes) -> None:
        if self.conversation is None:
            self.to_client.write(data)
        else:
            self._do(self.conversation.answered(data))

    def _do(self, step: Step) -> None:
        if step.to_server:
            self.to_server.write(step.to_server)
        if step.to_client:
            self.to_client.write(step.to_client)
        if step.over:
            raise _Over


def _matches(match: Match | None, command: Command, name: str) -> bool:
    if match is None:
        return name not in ALWAYS_ANSWERED
    if isinstance(match, str):
        return name == match or name.startswith(match + " ")
    return match(command)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, with RST."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
