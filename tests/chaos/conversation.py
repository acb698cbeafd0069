"""One Redis connection as the cut-proxy hears it: what is asked, and whose reply comes. No I/O.

Replies are only counted, not understood, except those that say where a server is. A command whose
fate is another than to be passed on waits until every earlier one has its reply; so no reply has to
be cut out of a stream.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import hiredis

Command = list[bytes]

ABORTED = b"-EXECABORT Transaction discarded because of previous errors.\r\n"

CONTAINERS = frozenset(
    b"ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION LATENCY MEMORY OBJECT PUBSUB SCRIPT SLOWLOG "
    b"SENTINEL XGROUP XINFO".split()
)
"""Commands that are named together with their first argument."""

CONFIRMED = frozenset(b"SUBSCRIBE PSUBSCRIBE SSUBSCRIBE".split())
"""Commands that are answered once for each argument."""

GUIDES = frozenset(("CLUSTER SLOTS", "SENTINEL GET-MASTER-ADDR-BY-NAME"))
"""Commands whose reply says where a server is."""

_PUSHED = frozenset((b"message", b"pmessage", b"smessage", b"invalidate"))
_NOTHING = object()


class Fate(Enum):
    """What is to become of a command; a further possibility is an error reply, as bytes."""

    PASS = "pass"
    TRANSLATE = "translate"
    """Passed on; the ports in its reply become those of the proxy."""
    LOSE_REPLY = "lose reply"
    LOSE_COMMAND = "lose command"


Verdict = Fate | bytes
Judge = Callable[[Command, str], Verdict]


@dataclass(slots=True)
class Step:
    """What to send on; `over`: then cut the connection."""

    to_server: bytes = b""
    to_client: bytes = b""
    over: bool = False


def name_of(command: Command, scripts: Mapping[str, str]) -> str:
    """`XADD`, `XGROUP CREATE`, `EVALSHA claim`: the command as faults and counts name it."""
    first = command[0].upper()
    if first in CONTAINERS and len(command) > 1:
        return f"{first.decode()} {command[1].upper().decode()}"
    if first == b"EVALSHA":
        sha = command[1].decode()
    elif first == b"EVAL":
        sha = hashlib.sha1(command[1], usedforsecurity=False).hexdigest()
    else:
        return first.decode()
    return f"{first.decode()} {scripts.get(sha, sha)}"


class Conversation:
    """Takes what both sides send, in chunks of any size, and says what to do.

    A lost reply of a command inside MULTI is that of EXEC, which holds it; an error there has EXEC
    refused, as Redis does.

    Args:
        judge: decides on each command, once, in the order they are asked.
        scripts: sha -> name of a Lua script.
        ports: of a server -> where its clients are to go instead; none is as small as a slot.
    """

    def __init__(
        self, judge: Judge, scripts: Mapping[str, str], ports: Mapping[int, int] | None = None
    ) -> None:
        self._judge = judge
        self._scripts = scripts
        self._ports = ports or {}
        self._commands = hiredis.Reader(notEnoughData=_NOTHING)
        self._replies = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[tuple[Command, Verdict]] = deque()
        self._unanswered = 0
        self._losing = False
        self._skipping = False
        self._translating = False
        self._in_multi = False
        self._refuse_exec = False
        self._lose_exec = False

    @property
    def unanswered(self) -> int:
        """Commands passed on whose reply has not come."""
        return self._unanswered

    def asked(self, data: bytes) -> Step:
        """The client sent this."""
        self._commands.feed(data)
        while (command := self._commands.gets()) is not _NOTHING:
            name = name_of(command, self._scripts)
            verdict = self._judge(command, name)
            if verdict is Fate.PASS and name in GUIDES and self._ports:
                verdict = Fate.TRANSLATE
            self._waiting.append((command, verdict))
        return self._go_on(Step())

    def answered(self, data: bytes) -> Step:
        """The server sent this."""
        before = self._unanswered
        reply: object = None
        self._replies.feed(data)
        while (heard := self._replies.gets()) is not _NOTHING:
            if self._unanswered and not _pushed(heard):
                self._unanswered -= 1
                reply = heard
        if self._losing:
            return Step(over=self._unanswered < before)
        if self._skipping:
            self._skipping = self._unanswered > 0
            data = b""
        if self._translating:
            self._translating = self._unanswered > 0
            data = b"" if self._translating else _packed(translated(reply, self._ports))
        return self._go_on(Step(to_client=data))

    def _go_on(self, step: Step) -> Step:
        to_server: list[bytes] = []
        while self._waiting and not step.over:
            if not self._carry_out(*self._waiting[0], to_server, step):
                break
            self._waiting.popleft()
        step.to_server = b"".join(to_server)
        return step

    def _carry_out(
        self, command: Command, verdict: Verdict, to_server: list[bytes], step: Step
    ) -> bool:
        """Do one command; False when it has to wait for the replies of those before."""
        if self._skipping or self._translating:
            return False
        first = command[0].upper()
        verdict = self._in_transaction(first, verdict)
        if verdict is Fate.PASS:
            to_server.append(self._pass(first, command))
        elif self._unanswered:
            return False
        elif verdict is Fate.LOSE_COMMAND:
            step.over = True
        elif verdict is Fate.LOSE_REPLY:
            self._losing = True
            to_server.append(self._pass(first, command))
        elif verdict is Fate.TRANSLATE:
            self._translating = True
            to_server.append(self._pass(first, command))
        else:
            step.to_client += verdict
            if first == b"EXEC":
                self._skipping = True
                to_server.append(self._pass(b"DISCARD", [b"DISCARD"]))
            self._refuse_exec = self._in_multi
        return True

    def _in_transaction(self, first: bytes, verdict: Verdict) -> Verdict:
        if first == b"EXEC" and self._refuse_exec:
            return ABORTED
        if first == b"EXEC" and self._lose_exec:
            return Fate.LOSE_REPLY
        if verdict is Fate.LOSE_REPLY and self._in_multi and first != b"EXEC":
            self._lose_exec = True
            return Fate.PASS
        return verdict

    def _pass(self, first: bytes, command: Command) -> bytes:
        if first == b"MULTI":
            self._in_multi = True
        elif first in (b"EXEC", b"DISCARD"):
            self._in_multi = self._refuse_exec = self._lose_exec = False
        self._unanswered += len(command) - 1 if first in CONFIRMED else 1
        packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
        return packed


def translated(reply: object, ports: Mapping[int, int]) -> object:
    """The reply with other ports."""
    if isinstance(reply, list):
        return [translated(each, ports) for each in reply]
    if isinstance(reply, bytes) and reply.isdigit():
        return b"%d" % ports.get(int(reply), int(reply))
    return ports.get(reply, reply) if isinstance(reply, int) else reply


def _packed(reply: object) -> bytes:
    """A reply as Redis writes it."""
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(_packed, reply))
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"$-1\r\n" if reply is None else b"-%b\r\n" % str(reply).encode()


def _pushed(reply: object) -> bool:
    """What a server sends unasked, to a connection that has subscribed."""
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        return False
    return reply[0] in _PUSHED
