"""Runs blocking work beside the event loop, in a thread that no end of the process waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


async def in_daemon_thread(work: Callable[[], _T], name: str) -> _T:
    """What `work` returns or raises; a caller that is cancelled does not wait for it.

    Not `asyncio.to_thread`: the end of the process waits for those threads, and a name server that
    does not answer would hold up a SIGTERM for longer than its grace period.
    """
    done: Future[_T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work())
        except BaseException as error:  # the waiting task gets it, whatever it is
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(done)
