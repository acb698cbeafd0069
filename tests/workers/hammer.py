"""Runs functions in threads at once, with a thread switch after nearly every step of Python."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

SWITCH = 1e-6
"""Seconds between thread switches; Python's default is 5,000 times as long."""


def hammer(*functions: Callable[[], object], seconds: float = 0.5) -> None:
    """Call each function again and again in a thread of its own, for `seconds`.

    Raises:
        BaseExceptionGroup: what they raised; each thread ends with its first exception.
    """
    errors: list[BaseException] = []
    start, end = threading.Barrier(len(functions)), time.monotonic() + seconds

    def repeat(function: Callable[[], object]) -> None:
        start.wait()
        try:
            while time.monotonic() < end and not errors:
                function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(each,), daemon=True) for each in functions]
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 30)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise BaseExceptionGroup("in threads", errors)
