"""Tells subscribers what happens, and protects the bridge from them.

A plain function is called at once, on the loop. What an `async def` returns runs in a task of its
subscription, one after the other, so that a subscriber sees things in the order in which they
happened. Not thread-safe: everything here belongs to the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from flybridge.bridge.lifecycle import KINDS, Errored, Happening
from flybridge.bridge.ops.status import now_ms
from flybridge.handlers.loggers import get_logger

SLOW = 0.1
"""Seconds that a callback may block the loop before it is warned of."""

WAITING = 1_000
"""Calls that may wait for one slow `async` subscriber; further ones are dropped."""

_Kind = TypeVar("_Kind", bound=Happening)
Callback = Callable[[Any], object]

log = get_logger(__name__)


def check_kind(kind: object) -> None:
    """Refuse a kind that does not exist.

    Raises:
        TypeError: it is none of `lifecycle.KINDS`.
    """
    if kind not in KINDS:
        known = ", ".join(each.__name__ for each in KINDS)
        raise TypeError(
            f"{kind!r} cannot be subscribed to; give one of {known}, as in @manager.on(Connected)."
        )


class Subscribers:
    """The subscriptions by kind; they outlive connections, leaderships, starts and stops."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_kind: dict[type[Any], tuple[Subscription, ...]] = {}

    def subscribe(
        self, kind: type[_Kind], callback: Callable[[_Kind], object]
    ) -> Callable[[], None]:
        """Call `callback` with everything of this kind; returns a function that ends that.

        Raises:
            TypeError: `kind` is none of `lifecycle.KINDS`, or `callback` cannot be called.
        """
        check_kind(kind)
        if not callable(callback):
            raise TypeError(f"{callback!r} cannot be called; give a function or an async def.")
        subscription = Subscription(kind.__name__, callback, self._clock)
        self._by_kind[kind] = (*self._by_kind.get(kind, ()), subscription)
        return partial(self._unsubscribe, kind, subscription)

    def wants(self, kind: type[Happening]) -> bool:
        """Whether anybody subscribes to this kind; otherwise nothing need be made."""
        return kind in self._by_kind

    def tell(self, happening: Happening) -> None:
        """Tell all subscribers of this kind; never raises, never waits."""
        for subscription in self._by_kind.get(type(happening), ()):
            subscription.take(happening)

    def errored(self, error: Exception) -> None:
        """Tell of an error that happened just now."""
        self.tell(Errored(error, now_ms()))

    async def settle(self, timeout: float) -> None:
        """Give running callbacks `timeout` seconds, then cancel them, but not the calling task."""
        running = self._running()
        if running:
            await asyncio.wait(running, timeout=timeout)
        for task in self._running():
            task.cancel()
        await asyncio.sleep(0)  # lets them end

    def _running(self) -> set[asyncio.Task[None]]:
        everybody = (each for subscribed in self._by_kind.values() for each in subscribed)
        tasks = {each.task for each in everybody if each.task is not None}
        return tasks - {asyncio.current_task()}

    def _unsubscribe(self, kind: type[Any], subscription: Subscription) -> None:
        left = tuple(each for each in self._by_kind.get(kind, ()) if each is not subscription)
        subscription.forget()
        if left:
            self._by_kind[kind] = left
        else:
            self._by_kind.pop(kind, None)


class Subscription:
    """One callback for one kind, with its failures."""

    def __init__(self, kind: str, callback: Callback, clock: Callable[[], float]) -> None:
        self.task: asyncio.Task[None] | None = None
        """Runs the waiting calls; None: there are none."""
        self._callback = callback
        self._clock = clock
        self._waiting: deque[Awaitable[object]] = deque()
        self._failures: Counter[str] = Counter()
        self._dropped = 0
        self._slow = False
        name = getattr(callback, "__qualname__", None) or type(callback).__qualname__
        self._whose = {"subscriber": name, "kind": kind}

    def take(self, happening: Happening) -> None:
        """Call the callback. If it returns an awaitable, that waits its turn."""
        began = self._clock()
        try:
            result = self._callback(happening)
        # A callback may raise anything; a CancelledError would end our reader.
        except (Exception, asyncio.CancelledError) as error:
            self._failed(error)
        else:
            if inspect.isawaitable(result):
                self._enqueue(result)
        self._note(self._clock() - began)

    def forget(self) -> None:
        """Drop what waits; what has begun goes on."""
        while self._waiting:
            _discard(self._waiting.popleft())

    def _enqueue(self, result: Awaitable[object]) -> None:
        if len(self._waiting) >= WAITING:
            _discard(result)
            self._drop()
            return
        self._waiting.append(result)
        if self.task is None or self.task.done():  # done: cancelled before it began
            self.task = asyncio.get_running_loop().create_task(self._run(), name="subscriber")

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._attend(self._waiting.popleft())
        finally:
            self.task = None
            self.forget()

    async def _attend(self, result: Awaitable[object]) -> None:
        try:
            await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._failed(error)  # the callback awaited something that was cancelled
        except Exception as error:  # a callback may raise anything
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """Log the 1st, 10th, 100th … failure of a kind, so that the log is not flooded."""
        kind = type(error).__name__
        self._failures[kind] += 1
        if _is_milestone(self._failures[kind]):
            times = self._failures[kind]
            log.error("subscriber.failed", **self._whose, times=times, exc_info=error)

    def _drop(self) -> None:
        self._dropped += 1
        if _is_milestone(self._dropped):
            cure = f"make it faster: {WAITING} wait for it, and it is not told of the rest"
            log.warning("subscriber.overrun", **self._whose, dropped=self._dropped, cure=cure)

    def _note(self, seconds: float) -> None:
        if seconds > SLOW and not self._slow:
            self._slow = True
            cure = "make it an async def, or hand its work to a thread; the bridge waits for it"
            log.warning("subscriber.slow", **self._whose, seconds=round(seconds, 3), cure=cure)


def _discard(result: Awaitable[object]) -> None:
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody awaited it


def _is_milestone(count: int) -> bool:
    """Whether it is 1, 10, 100 …"""
    return str(count).rstrip("0") == "1"
