"""Embeds one bridge in a running event loop: start it, watch it, talk over its connection, stop it.

Of several bridges of an app only the leader is connected, whatever is called here. A manager
belongs to one loop at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.errors import Misused, NotConnected
from flybridge.bridge.feishu.connection import Connection
from flybridge.bridge.lifecycle import Connected, Disconnected, Errored, Happening, SteppedDown
from flybridge.bridge.node.assembly import assembled, heartbeat
from flybridge.bridge.node.client import Client
from flybridge.bridge.node.startable import Startable
from flybridge.bridge.node.subscribers import Subscribers, check_kind
from flybridge.bridge.node.supervisor import Supervisor
from flybridge.bridge.ops.status import State, Status, now_ms
from flybridge.bridge.protocol.heartbeat import HeartbeatStatistics
from flybridge.bridge.telemetry import logs, tracing

__all__ = ["ConnectionManager"]

GRACE = 0.5
"""Seconds that `async` subscribers have at a stop to finish."""

_Kind = TypeVar("_Kind", bound=Happening)
_Callback = TypeVar("_Callback", bound=Callable[..., object])


class ConnectionManager(Startable):
    """A bridge of one app. `async with ConnectionManager(settings) as manager:` starts and stops.

    `settings` comes from `BridgeSettings.load(…)`. The kinds for `subscribe` and `on` are in
    `lifecycle`: `Connected`, `Disconnected`, `MessageReceived` and so on.

    Give blocking work to threads: a leader whose event loop stands still for longer than
    `lease_duration` would steal events from its successor, so the whole process is ended then, with
    code 6.

    It may be started again after a stop, and managers of different apps may run side by side.
    Subscriptions outlive stops.

    Args:
        traced: whether spans are made; None: if a tracer provider is installed when it starts.

    Raises:
        TypeError: `settings` is something else.
    """

    def __init__(self, settings: BridgeSettings, *, traced: bool | None = None) -> None:
        if not isinstance(settings, BridgeSettings):
            raise TypeError(
                f"a {type(settings).__name__} is no settings; give BridgeSettings.load(…)"
            )
        super().__init__("manager", "bridge.ended")
        self._settings = settings
        self._traced = traced
        self._heartbeat = heartbeat(settings)
        self._lifecycle = Subscribers()
        self._supervisor: Supervisor | None = None
        self._changed = asyncio.Event()
        self._is_settled = self._is_stopping = False
        for kind in (Connected, Disconnected, SteppedDown, Errored):
            self._lifecycle.subscribe(kind, self._note)

    # Life

    async def start(self) -> None:
        """Start, and return once the outcome is known: standby, connected, or trying again.

        A `stop` meanwhile is obeyed and no error.

        Raises:
            Misused: it runs already.
            RedisUnreachable, RedisUnfit: at the start; later outages are waited out.
            FeishuRefused: wrong credentials or domain, which Feishu had never accepted.
            PortTaken: the ops port is taken.
        """
        self._refuse_if_running()
        logs.embed(self._settings.log_level, secrets=self._settings.secrets)
        self._supervisor = None
        self._is_settled = self._is_stopping = False
        self._launch(self._run()).add_done_callback(self._ended)
        try:
            with self._witnessed():
                await self._until(lambda: self._is_settled)
        except asyncio.CancelledError:
            await self.stop()
            raise
        self._raise_its_error()

    async def stop(self) -> None:
        """Publish and ack what was read, close, and release the lease, in less than 2 s.

        It is no error if it does not run. What ended it before comes out of `wait`.
        """
        self.stop_soon()
        if self._task is not None:
            await asyncio.wait({self._task})
        await self._lifecycle.settle(GRACE)

    def stop_soon(self) -> None:
        """Begin to stop, without waiting; for signal handlers of the loop."""
        if self._is_stopping or self._task is None:
            return
        self._is_stopping = True
        if self._supervisor is not None:
            self._supervisor.stop()
        else:
            self._task.cancel()

    # The connection

    @property
    def is_connected(self) -> bool:
        """Whether this bridge leads and its connection to Feishu is open."""
        return self._connection is not None

    async def connected(self, timeout: float | None = None) -> None:
        """Wait until it is connected, for at most `timeout` seconds. A standby may never be.

        Raises:
            TimeoutError: it is not, with the reason.
            BridgeError: it has ended; `NotConnected` when `stop` ended it, or it never started.
        """
        try:
            with self._witnessed():
                async with asyncio.timeout(timeout):
                    await self._until(lambda: self.is_connected)
        except TimeoutError:
            raise TimeoutError(f"Not connected within {timeout:g} s: {self._trouble}.") from None
        if not self.is_connected:
            self._raise_its_error()
            raise NotConnected(f"There will be no connection: {self._trouble}.")

    async def send(self, data: str | bytes) -> None:
        """Send one WebSocket message on the present connection, as it is, once.

        Args:
            data: bytes: a binary message, which must be a frame for Feishu. Text needs the setting
                `text_dialect`, since Feishu has no text messages.

        Raises:
            NotConnected: there is no connection, or it has just ended.
            Misused: text without the text dialect.
        """
        if not isinstance(data, str | bytes):
            raise TypeError(f"send takes str or bytes, not {type(data).__name__}; encode it first.")
        if isinstance(data, str) and not self._settings.text_dialect:
            raise Misused(
                "Feishu's long connection has no text messages, and closes on them; send bytes, or "
                "set FLYBRIDGE_TEXT_DIALECT=true for a gateway that speaks text."
            )
        if (connection := self._connection) is None:
            raise NotConnected(f"Nothing was sent: {self._trouble}; await connected() first.")
        await connection.send(data)

    async def reconnect(self) -> None:
        """Drain and close the connection, if there is one, and connect again at once.

        Returns when connected.

        Raises:
            NotConnected: this bridge does not lead; or the attempt failed, and others follow.
        """
        supervisor = self._supervisor
        if supervisor is None or not self._is_running:
            raise NotConnected(f"This bridge cannot reconnect: {self._trouble}.")
        failed = supervisor.failed_attempts
        await supervisor.reconnect()
        await self._until(
            lambda: (
                self.is_connected
                or supervisor.failed_attempts != failed
                or supervisor.state is not State.LEADING
            )
        )
        if not self.is_connected:
            raise NotConnected(f"There is no new connection yet: {self._trouble}.")

    # What there is to know

    @property
    def state(self) -> State:
        """The state of the bridge; `STOPPED` before the first start, too."""
        if self._supervisor is None:
            return State.STANDBY if self._is_running else State.STOPPED
        return self._supervisor.state

    @property
    def heartbeat(self) -> HeartbeatStatistics:
        """Pings and pongs over all connections since the manager was made."""
        return self._heartbeat.statistics(time.monotonic(), now_ms())

    @property
    def client(self) -> Client:
        """The connection: its id, address, age and counters."""
        if self._supervisor is None:
            return Client()
        return Client.of(self._supervisor.status(), self._supervisor.endpoint)

    def status(self) -> Status:
        """The whole status; after the end, the last one.

        Raises:
            Misused: it was never started, or Redis has not answered yet.
        """
        if self._supervisor is None:
            raise Misused("There is no status before start() has returned; see `state`.")
        return self._supervisor.status()

    def subscribe(
        self, kind: type[_Kind], callback: Callable[[_Kind], object]
    ) -> Callable[[], None]:
        """Call `callback`, a function or an `async def`, with everything of this kind that happens.

        Returns a function that ends the subscription. Errors of the callback are logged and disturb
        nobody. Call it on the loop, or before the loop runs.
        """
        return self._lifecycle.subscribe(kind, callback)

    def on(self, kind: type[Happening]) -> Callable[[_Callback], _Callback]:
        """`subscribe` as a decorator: `@manager.on(Connected)`.

        Raises:
            TypeError: `kind` is none of `lifecycle.KINDS`.
        """
        # At once: without parentheses the decorator would get the callback as the kind.
        check_kind(kind)

        def decorate(callback: _Callback) -> _Callback:
            self._lifecycle.subscribe(kind, callback)
            return callback

        return decorate

    # Inside

    async def _run(self) -> None:
        traced = tracing.installed() if self._traced is None else self._traced
        assembling = assembled(
            self._settings,
            heartbeat=self._heartbeat,
            lifecycle=self._lifecycle,
            on_asked=self._asked,
            traced=traced,
        )
        async with assembling as supervisor:
            self._supervisor = supervisor
            if self._is_stopping:  # redis-py may have swallowed the cancellation
                supervisor.stop()
            await supervisor.run()

    @property
    def _connection(self) -> Connection | None:
        if self._supervisor is None or self._supervisor.state is not State.LEADING:
            return None
        return self._supervisor.connection

    @property
    def _trouble(self) -> str:
        if not self._is_running or self._supervisor is None:
            return "the bridge is not running"
        return self._supervisor.trouble

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition, checked at every change, is true, or until the end."""
        while self._is_running and not condition():
            await self._changed.wait()

    def _note(self, happening: Happening) -> None:
        if isinstance(happening, Connected | Errored):
            self._is_settled = True
        self._wake()

    def _asked(self) -> None:
        if self._supervisor is not None and not self._supervisor.leads:
            self._is_settled = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._lifecycle.errored(error)
        self._wake()
