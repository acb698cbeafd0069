"""pytest fixtures for the tests of who uses Flybridge: `pytest_plugins =
["flybridge.bridge.testing"]`.

* `local_feishu`: a Feishu on this machine, on the real protocol: push events, wait for their acks
* `embedded_redis`: a Redis or Valkey of the test's own, on a free port
* `flybridge`: bridge and worker in this process between the two, with the handlers that you add

def test_greets(flybridge: Flybridge) -> None:
    flybridge.add_handler(Greet, "im.message.receive_v1")
    assert flybridge.push("im.message.receive_v1", {"message.content": "hi"}).settled() == "done"

All of them run on threads of their own, so that a test may wait for them, `async def` by
`await asyncio.to_thread(…)`. A handler alone needs none of this: see `flybridge.handlers.testing`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

import pytest

# What is heavy is imported by the fixture that needs it: a plugin costs every test session.
if TYPE_CHECKING:
    from redis import Redis

    from flybridge.bridge.builder import Builder, Service
    from flybridge.bridge.local.feishu.pushes import Attempt, Push
    from flybridge.bridge.local.feishu.server import LocalFeishu
    from flybridge.bridge.local.valkey import EmbeddedRedis
    from flybridge.handlers.registering.options import Options

__all__ = [
    "FeishuOnThread",
    "Flybridge",
    "Pushed",
    "Sent",
    "embedded_redis",
    "feishu_on_thread",
    "flybridge",
    "local_feishu",
]

WAIT_TIMEOUT = 10.0
"""Seconds that waiting takes at most by default."""

_LOOK = 0.01

EnteredT = TypeVar("EnteredT")


@pytest.fixture
def local_feishu() -> Iterator[FeishuOnThread]:
    """A local Feishu that knows one app, on its own thread; it pushes again after 0.15 s."""
    with feishu_on_thread(clock_scale=100.0) as feishu:
        yield feishu


@pytest.fixture
def embedded_redis() -> Iterator[EmbeddedRedis]:
    """An in-memory server with a `url`; without a server binary the test is skipped."""
    from flybridge.bridge.errors import RedisUnreachable
    from flybridge.bridge.local.valkey import EmbeddedRedis, find_binary

    try:
        find_binary()
    except RedisUnreachable as missing:
        pytest.skip(str(missing))
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture
def flybridge(local_feishu: FeishuOnThread, embedded_redis: EmbeddedRedis) -> Iterator[Flybridge]:
    """A bridge and a worker in this process, started by the first push."""
    with ExitStack() as until_end:
        yield Flybridge(local_feishu, embedded_redis.url, until_end)


@contextmanager
def feishu_on_thread(**options: Any) -> Iterator[FeishuOnThread]:
    """`local_feishu` with the options of `LocalFeishu`."""
    from flybridge.bridge.local.feishu.server import LocalFeishu

    with _on_thread(lambda: LocalFeishu(**options)) as (feishu, loop):
        yield FeishuOnThread(feishu, loop)


@dataclass(frozen=True, slots=True)
class FeishuOnThread:
    """A running local Feishu, for `def` and `async def` tests."""

    feishu: LocalFeishu
    """For faults and counters; it lives on another thread."""
    loop: asyncio.AbstractEventLoop = field(repr=False)

    @property
    def url(self) -> str:
        """The value for FLYBRIDGE_DOMAIN."""
        return self.feishu.url

    @property
    def app_id(self) -> str:
        return self.feishu.app_id

    @property
    def app_secret(self) -> str:
        return self.feishu.app_secret

    def push(
        self, event: str | Mapping[str, Any] | bytes, overrides: Mapping[str, Any] | None = None
    ) -> Pushed:
        """Push an event to the app, as soon as a bridge is connected.

        Args:
            event: a type, whose sample is pushed under a fresh id; or an envelope.
            overrides: change the sample, by dotted path into the `event` object.

        Raises:
            ValueError: there is no such sample, or no such path in it.
        """
        from flybridge.handlers.samples import sample

        envelope = (
            sample(event, app_id=self.app_id, overrides=overrides)
            if isinstance(event, str)
            else event
        )
        pushing = asyncio.run_coroutine_threadsafe(self._push(envelope), self.loop)
        return Pushed(pushing.result(WAIT_TIMEOUT), self)

    async def _push(self, envelope: Mapping[str, Any] | bytes) -> Push:
        return self.feishu.push(envelope)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An event that was pushed."""

    push: Push
    feishu: FeishuOnThread = field(repr=False)

    @property
    def event_id(self) -> str:
        return self.push.event_id

    def acked(self, timeout: float = WAIT_TIMEOUT) -> Attempt:
        """Wait for an ack of code 200; returns the attempt that got it.

        Raises:
            TimeoutError: there was none within so many seconds.
        """
        waiting = asyncio.run_coroutine_threadsafe(self.push.wait(), self.feishu.loop)
        try:
            waiting.result(timeout)
        except TimeoutError:
            waiting.cancel()
            connected = len(self.feishu.feishu.connections)
            raise TimeoutError(
                f"{self.event_id} is not acked after {timeout:g} s; {connected} bridges are "
                f"connected, answers so far: {[each.code for each in self.push.attempts]}"
            ) from None
        return self.push.attempts[-1]


class Flybridge:
    """A bridge and a worker in this process, between `local_feishu` and `embedded_redis`.

    Attributes:
        builder: for configuration before the first push.
        redis: a client of the Redis between them.
    """

    def __init__(self, feishu: FeishuOnThread, redis_url: str, until_end: ExitStack) -> None:
        from redis import Redis

        from flybridge.bridge.builder import Builder

        self.feishu = feishu
        self.builder: Builder = (
            Builder()
            .configure(
                app_id=feishu.app_id,
                app_secret=feishu.app_secret,
                domain=feishu.url,
                redis_url=redis_url,
                # There is no other worker to wait for.
                unhandled_after=0,
            )
            .use_multi_handler()
        )
        self.redis: Redis = until_end.enter_context(Redis.from_url(redis_url))
        self._service: Service | None = None
        self._until_end = until_end

    def add_handler(self, handler: object, *types: str, **options: Unpack[Options]) -> Flybridge:
        """Register a handler, as `Registry.register` does; before the first push or later.

        Raises:
            RegistrationInvalid: a mistake, with what to change.
        """
        if self._service is None:
            self.builder.add_handler(handler, *types, **options)
        else:
            self._service.registry.register(handler, *types, **options)
        return self

    @property
    def service(self) -> Service:
        """The built service. It is started at first use, and stops with the test."""
        if self._service is None:
            service = self.builder.build()
            self._until_end.enter_context(_on_thread(lambda: service))
            self._service = service
        return self._service

    def push(
        self, event: str | Mapping[str, Any] | bytes, overrides: Mapping[str, Any] | None = None
    ) -> Sent:
        """Push an event from the local Feishu; arguments as in `FeishuOnThread.push`.

        Raises:
            ValueError: there is no such sample, or no such path in it.
        """
        from flybridge.bridge.store.streams import Keys

        group = self.service.settings.group
        pushed = self.feishu.push(event, overrides)
        key = Keys(self.feishu.app_id).state(group, pushed.event_id)
        return Sent(pushed, lambda: self._state(key))

    def _state(self, key: str) -> str:
        state: Any = self.redis.hget(key, "state")
        return state.decode() if state else ""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event on its way to its handlers."""

    pushed: Pushed
    _state: Callable[[], str] = field(repr=False)

    @property
    def event_id(self) -> str:
        return self.pushed.event_id

    def settled(self, timeout: float = WAIT_TIMEOUT) -> Literal["done", "dead"]:
        """Wait until all handlers have ended for good: `done`, or `dead` for a dead letter.

        Raises:
            TimeoutError: they had not within so many seconds.
        """
        self.pushed.acked(timeout)
        deadline = time.monotonic() + timeout
        while (state := self._state()) not in ("done", "dead"):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.event_id} is not settled after {timeout:g} s, but "
                    f"{state or 'not begun'}; is a handler for its type added?"
                )
            time.sleep(_LOOK)
        return "done" if state == "done" else "dead"


@contextmanager
def _on_thread(
    make: Callable[[], AbstractAsyncContextManager[EnteredT]],
) -> Iterator[tuple[EnteredT, asyncio.AbstractEventLoop]]:
    """Enter an async context on a loop and thread of its own; leave it there at the end."""
    entered: Future[tuple[EnteredT, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    ended: Future[None] = Future()

    async def live() -> None:
        async with make() as it:
            leave = asyncio.Event()
            entered.set_result((it, asyncio.get_running_loop(), leave))
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        # Whatever it is, it belongs to the test, which waits for one of the two.
        except BaseException as error:
            (ended if entered.done() else entered).set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=run, name="flybridge-testing", daemon=True).start()
    it, loop, leave = entered.result(WAIT_TIMEOUT)
    try:
        yield it, loop
    finally:
        if not ended.done():
            loop.call_soon_threadsafe(leave.set)
        ended.result(WAIT_TIMEOUT)
