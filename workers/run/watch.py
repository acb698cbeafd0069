"""Watches the calls of handlers in this process: logs those that overrun or block a loop.

It only logs and counts; `child.py` interrupts and kills.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from flybridge.handlers.base import Context
from flybridge.handlers.batch import BatchContext
from flybridge.handlers.loggers import get_logger
from flybridge.workers.routes import routing

if TYPE_CHECKING:
    from flybridge.handlers.registry import Registration

log = get_logger(__name__)

LOOK_PERIOD = 0.25
"""Seconds between looks."""

OVERRUN_AFTER = 1.0
"""Seconds past its timeout after which a call that still runs is told of: what ends by its timeout
needs some time for that."""

LATE_AFTER = 0.1
"""Seconds past its timeout after which a success is told of as late."""

BLOCKED_AFTER = 1.0
"""Seconds without an answer after which a loop counts as blocked."""

OVERRUN = (
    "its event is kept and its slot taken until it ends; in prefork its process is killed. Give "
    "whatever it waits for a timeout"
)
BLOCKS = "nothing else runs on this loop; make it a def, or use asyncio.to_thread for what blocks"


class Call(Struct, eq=False):
    """One call of a handler, from its start to its end."""

    registration: Registration
    given: Any
    """The event, or the list of them."""
    context: Context | BatchContext
    thread: int
    """Ident of the thread of the call, or of the loop that awaits it."""
    task: asyncio.Task[Any] | None = None
    """Of a coroutine, which runs there; None for a `def`."""
    told: bool = False
    struck: bool = False
    """It was interrupted; once is enough."""

    def late(self, now: float) -> float:
        """Seconds past its timeout; less than 0 before."""
        return now - self.context.deadline

    def is_lost(self, now: float) -> bool:
        """Whether it should have ended long ago, interrupted or not."""
        margin = 0.0 if self.task is None else routing.COROUTINE_MARGIN
        return self.late(now) > margin + routing.INTERRUPT_GRACE

    def seconds(self, now: float) -> float:
        """How long it has been running."""
        return self.registration.timeout + self.late(now)


class Counts:
    """Counters that `celery inspect stats` shows."""

    def __init__(self) -> None:
        self.overruns = 0
        """Calls that ran on past their timeout, or returned after it; of a prefork pool, requests
        whose time was up."""
        self.blocked = 0
        """Times that a coroutine held up its loop."""


class Watch:
    """Watches the calls of this process."""

    def __init__(self) -> None:
        self.calls: set[Call] = set()
        """Those that run; read by one thread while others change it."""
        self.counts = Counts()
        self._each: list[Callable[[float], None]] = []
        self._loops: dict[asyncio.AbstractEventLoop, _Ping] = {}
        self._starting = threading.Lock()
        self._started = False

    def begin(
        self,
        registration: Registration,
        given: Any,
        context: Any,
        task: asyncio.Task[Any] | None = None,
    ) -> Call:
        """Note that this thread is about to call a handler."""
        call = Call(registration, given, context, threading.get_ident(), task)
        self.calls.add(call)
        if not self._started:
            self._start()
        return call

    def ended(self, call: Call, *, returned: bool) -> None:
        """Log the end of a call that has overrun; it is taken out of `calls` before."""
        now = time.monotonic()
        if call.told or (returned and call.late(now) > LATE_AFTER):
            self._tell_end(call, now, returned=returned)

    def all_lost(self, now: float) -> bool:
        """Whether calls run, and each of them should have ended long ago."""
        calls = list(self.calls)
        return bool(calls) and all(call.is_lost(now) for call in calls)

    def is_blocked(self, loop: asyncio.AbstractEventLoop, now: float) -> bool:
        """Whether a loop that runs handlers has not answered for long."""
        ping = self._loops.get(loop)
        return ping is not None and not ping.answered and now - ping.sent > BLOCKED_AFTER

    def also(self, look: Callable[[float], None]) -> None:
        """Call `look` at each look, with monotonic seconds."""
        self._each.append(look)

    def look(self, now: float) -> None:
        """Log what is new since the last look."""
        calls = list(self.calls)
        for call in calls:
            if call.late(now) > OVERRUN_AFTER and not call.told:
                self._tell(call, now)
        self._look_at_loops([call for call in calls if call.task is not None], now)
        for each in self._each:
            each(now)

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                threading.Thread(target=self._serve, name="flybridge-watch", daemon=True).start()

    def _serve(self) -> None:
        while True:
            time.sleep(LOOK_PERIOD)
            try:
                self.look(time.monotonic())
            except Exception:  # a bug here: handlers go on, and so must the looks
                log.exception("watch.failed")

    def _tell(self, call: Call, now: float) -> None:
        call.told = True
        self.counts.overruns += 1
        log.warning("handler.overrun", **named(call), seconds=round(call.seconds(now), 1),
                    timeout=call.registration.timeout, hint=OVERRUN)  # fmt: skip

    def _tell_end(self, call: Call, now: float, *, returned: bool) -> None:
        if not call.told:
            self.counts.overruns += 1
        log.warning("handler.late", **named(call), seconds=round(call.seconds(now), 1),
                    timeout=call.registration.timeout, kept=returned)  # fmt: skip

    def _look_at_loops(self, calls: list[Call], now: float) -> None:
        found = {call.task.get_loop(): call for call in calls if call.task is not None}
        for loop in self._loops.keys() - found.keys():
            del self._loops[loop]
        for loop, call in found.items():
            ping = self._loops.get(loop)
            if ping is None or ping.answered:
                self._ping(loop, ping, now)
            elif self.is_blocked(loop, now) and not ping.told:
                ping.told = True
                self.counts.blocked += 1
                self._tell_blocked(loop, call.thread, calls, now - ping.sent)

    def _ping(self, loop: asyncio.AbstractEventLoop, last: _Ping | None, now: float) -> None:
        ping = self._loops[loop] = _Ping(now)
        try:
            loop.call_soon_threadsafe(ping.answer)
        except RuntimeError:  # it was closed just now
            del self._loops[loop]

    def _tell_blocked(
        self, loop: asyncio.AbstractEventLoop, thread: int, calls: list[Call], seconds: float
    ) -> None:
        own = [call for call in calls if call.task is not None and call.task.get_loop() is loop]
        running = asyncio.current_task(loop)
        culprits = [call for call in own if call.task is running] or own
        who = named(culprits[0]) if len(culprits) == 1 else {"handler": ""}
        log.warning("loop.blocked", **who, seconds=round(seconds, 1),
                    at=_place(sys._current_frames().get(thread)), hint=BLOCKS)  # fmt: skip


class _Ping:
    """One question to a loop whether it still answers."""

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.answered = False
        self.told = False

    def answer(self) -> None:
        self.answered = True


def named(call: Call) -> dict[str, Any]:
    """What a call is, as fields of a log line."""
    fields: dict[str, Any] = {"handler": call.registration.name}
    if isinstance(call.context, Context):
        fields["event_id"] = call.context.event_id
        fields["attempt"] = call.context.attempt
    else:
        fields["events"] = len(call.context.attempts)
    return fields


def _place(frame: FrameType | None) -> str:
    """`file:line`, of the innermost Python code."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


_here = Watch()


def here() -> Watch:
    """That of this process."""
    return _here


def _renew() -> None:
    # A forked child has none of its parent's threads and calls.
    global _here
    _here = Watch()


os.register_at_fork(after_in_child=_renew)
