"""Enforces timeouts in a child of the prefork pool: interrupts handlers, and ends the process.

At its timeout a `def` in the main thread is interrupted, and so is a coroutine that blocks the
loop: by a signal, and within the handler's own code only. A handler that goes on all the same, or
cannot be interrupted, costs the process its life; before that the child tells its parent the
results of the others. Celery's own time limits remain as a net, for code that lets no Python run.

Everything here that touches billiard beyond its documentation is named in
`tests/workers/test_celery_contract.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from billiard.process import current_process

from flybridge.handlers.loggers import get_logger
from flybridge.workers.routes import routing
from flybridge.workers.run import progress, watch
from flybridge.workers.run.failures import CRASHED, overdue

if TYPE_CHECKING:
    from flybridge.workers.run.runner import Cases
    from flybridge.workers.run.watch import Call

log = get_logger(__name__)

LAST_WORDS = 71
"""Billiard numbers the messages of a child to its parent; this one is ours."""

KILL_TIMEOUT = 2.0
"""Seconds that the parent has to receive the last message, and kill."""

KILLED = "its process ends with it; what others of its event or bundle have achieved is kept"

EARLY = 0.5
"""Seconds before its timeout from which on a handler may be interrupted: the parent reckons from a
bit earlier."""


class Child:
    """Enforces timeouts in this process.

    Args:
        send: takes a message for the parent; not to be called while the main thread may.
    """

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._main = threading.main_thread().ident or 0
        # Held while the parent is told: the main thread must not write to the same pipe.
        self._speaking = threading.Lock()
        self._request = ""
        self.cases: Cases = []
        """Of the request in work."""
        signal.signal(signal.SIGUSR1, self._interrupt)
        watch.here().also(self._look)

    @contextmanager
    def at(self, request: str) -> Iterator[None]:
        """Remember the request in work."""
        self.cases = []
        self._request = request
        try:
            yield
        finally:
            with self._speaking:
                self._request = ""

    def _look(self, now: float) -> None:
        calls = list(watch.here().calls)
        if watch.here().all_lost(now):
            self._die(calls, now)
        elif any(self._is_due(call, now) for call in calls):
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def _interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raise in the handler that runs in the main thread, if its time is up."""
        now, calls = time.monotonic(), list(watch.here().calls)
        due = [call for call in calls if self._is_due(call, now + EARLY) and _is_in(call, now)]
        if due:
            due[0].struck = True
            raise SoftTimeLimitExceeded

    def _is_due(self, call: Call, now: float) -> bool:
        if call.struck or call.thread != self._main:
            return False
        # A coroutine is cancelled by its timeout; unless it blocks the loop.
        margin = 0.0 if call.task is None else routing.COROUTINE_MARGIN
        return call.late(now) >= margin

    def _die(self, calls: list[Call], now: float) -> None:
        with self._speaking:
            if not self._request:
                return
            seconds = round(max(call.seconds(now) for call in calls), 1)
            for call in calls:
                log.error("handler.killed", **watch.named(call),
                          seconds=round(call.seconds(now), 1), hint=KILLED)  # fmt: skip
            outcomes = progress.outcomes(self.cases, calls, overdue(seconds))
            self._send((LAST_WORDS, (self._request, (outcomes, CRASHED))))
            sys.stdout.flush()
            sys.stderr.flush()
            # The parent kills this process when it has received this: where several children die
            # at a time, billiard may lose what is left in the pipe of a dead one.
            time.sleep(KILL_TIMEOUT)
            os.kill(os.getpid(), signal.SIGKILL)


def _is_in(call: Call, now: float) -> bool:
    """Whether the main thread is within the handler's code; asked there, by a signal."""
    if call.task is None:
        return True
    try:
        running = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return False
    # It may be a task that the handler has started.
    blocked = watch.here().is_blocked(call.task.get_loop(), now)
    return running is call.task or (running is not None and blocked)


_here: Child | None = None
_asked = False


def here() -> Child | None:
    """That of this process; None if it is no child of a prefork pool."""
    global _here, _asked
    if not _asked:
        _asked = True
        # Billiard sets it in each child, and nowhere else.
        if signal.getsignal(signal.SIGUSR1) is soft_timeout_sighandler:
            _here = Child(current_process()._target.outq.put)
    return _here


def _forget() -> None:
    global _here, _asked
    _here, _asked = None, False


os.register_at_fork(after_in_child=_forget)
