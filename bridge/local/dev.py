"""`flybridge dev`: embedded Redis, local Feishu, bridges and a worker in one process tree.

For development only: what it keeps is gone at the end.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis

from flybridge.bridge.errors import BridgeError
from flybridge.bridge.local import actors
from flybridge.bridge.local.actors import Actor
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET, LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.process.signals import stop_on_signals
from flybridge.bridge.store.streams import Keys

GROUP = "workers"
WORKER = "worker"

LOOK = 0.5
"""Seconds between looks at the children."""

SOON = 0.05
"""Seconds between looks while they start."""

Say = Callable[[str], object]


class ChildRefused(BridgeError):
    """A child process refused to run, and has said why. We exit with its code.

    Args:
        status: its exit code.
        reminder: where to look, if others may have written below its line.
    """

    def __init__(self, status: int, reminder: str) -> None:
        self.exit_code = status
        super().__init__(reminder)


@dataclass(frozen=True, slots=True)
class Cast:
    """The child processes to start, by name, with the arguments of `flybridge`."""

    parts: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]

    @classmethod
    def of(
        cls, bridges: int, pool: str, handlers: str, log_level: str, feishu: str, redis: str
    ) -> Cast:
        """One worker and some bridges, in the order in which they start."""
        parts: dict[str, Sequence[str]] = {WORKER: ["worker", "--pool", pool]}
        for number in range(1, bridges + 1):
            parts[f"bridge-{number}"] = ["run"]
        environment = {
            "FLYBRIDGE_APP_ID": APP_ID,
            "FLYBRIDGE_APP_SECRET": APP_SECRET,
            "FLYBRIDGE_DOMAIN": feishu,
            "FLYBRIDGE_REDIS_URL": redis,
            "FLYBRIDGE_HANDLERS": handlers,
            "FLYBRIDGE_GROUP": GROUP,
            "FLYBRIDGE_LOG_FORMAT": "console",
            "FLYBRIDGE_LOG_LEVEL": log_level,
            # Short, so that a killed leader is replaced before one has lost patience.
            "FLYBRIDGE_LEASE_DURATION": "3",
            "FLYBRIDGE_RENEW_DEADLINE": "2",
            "FLYBRIDGE_RETRY_PERIOD": "0.5",
            "FLYBRIDGE_EVENT_LEASE": "10",
            # There is no other worker to wait for.
            "FLYBRIDGE_UNHANDLED_AFTER": "0",
        }
        return cls(parts, environment)


@dataclass(slots=True)
class Stage:
    """The running children, until `stop` is set. A child that is killed is started again."""

    cast: Cast
    stop: asyncio.Event
    say: Say
    playing: dict[str, Actor] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a child whose logs go to our terminal."""
        cast = self.cast
        self.playing[name] = actors.start(name, cast.parts[name], cast.environment, log=None)

    def leave(self) -> None:
        """Stop everything, and say what that waits for."""
        if not self.stop.is_set():
            self.say(f"\nStopping {', '.join(self.playing)}; ^C again ends them within 2 s.")
        self.stop.set()

    def hurry(self) -> None:
        """Pass a second signal on; callable from any thread."""
        actors.hurry(list(self.playing.values()))

    async def look(self, pause: float) -> None:
        """Check the children, then wait for `pause` seconds or for `stop`.

        Raises:
            ChildRefused: a child refused to run.
        """
        for name, actor in self.playing.items():
            self._look_after(name, actor.process.poll())
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), pause)

    def _look_after(self, name: str, status: int | None) -> None:
        if status is None:
            return
        if status > 0:
            others = len(self.playing) > 1
            told = f"{name} ended with {status}; its line `flybridge: …` above says why."
            raise ChildRefused(status, told if others else "")
        self.say(f"{name} was ended by {_cause(status)}; starting it again")
        self.start(name)


async def dev(
    *,
    port: int,
    bridges: int,
    pool: str,
    handlers: str,
    log_level: str,
    say: Say,
) -> None:
    """Run everything until SIGTERM or SIGINT.

    Raises:
        ChildRefused: a child refused to run, since a handler module fails to import, for instance.
        OSError: the port is taken.
        RedisUnreachable: there is no Redis or Valkey server on this machine.
    """
    with EmbeddedRedis() as redis:
        async with LocalFeishu(port=port) as feishu:
            cast = Cast.of(bridges, pool, handlers, log_level, feishu.url, redis.url)
            stage = Stage(cast, asyncio.Event(), say)
            stop_on_signals(stage.leave, hurry=stage.hurry)
            try:
                await _open(stage, feishu)
                while not stage.stop.is_set():
                    await stage.look(LOOK)
            finally:
                # In a thread: the local Feishu must go on answering while they say goodbye.
                await asyncio.to_thread(actors.stop, list(stage.playing.values()))


async def _open(stage: Stage, feishu: LocalFeishu) -> None:
    """Start the children, and say when all is ready: a bridge is connected, the worker reads.

    The worker comes first: it may refuse the handlers, and then nothing else has logged anything.
    """
    cast, stop = stage.cast, stage.stop
    stage.say(_scene(cast))
    stage.start(WORKER)
    async with Redis.from_url(cast.environment["FLYBRIDGE_REDIS_URL"]) as client:
        while not stop.is_set() and not await client.exists(Keys(APP_ID).workers(GROUP)):
            await stage.look(SOON)
    if stop.is_set():
        return
    for bridge in (name for name in cast.parts if name != WORKER):
        stage.start(bridge)
    while not stop.is_set() and not feishu.connections:
        await stage.look(SOON)
    if not stop.is_set():
        stage.say(_welcome(stage))


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status else "itself"


def _scene(cast: Cast) -> str:
    told = cast.environment
    return f"""\
flybridge dev: nothing leaves this machine
Redis:     {told["FLYBRIDGE_REDIS_URL"]}   embedded, in memory, gone at the end
Feishu:    {told["FLYBRIDGE_DOMAIN"]}   local, on the real protocol
Handlers:  {told["FLYBRIDGE_HANDLERS"]}
"""


def _welcome(stage: Stage) -> str:
    pids = "   ".join(f"{name} {actor.process.pid}" for name, actor in stage.playing.items())
    told = stage.cast.environment
    return f"""
Processes: {pids}

In another terminal, push an event:
  flybridge trigger im.message.receive_v1 --url {told["FLYBRIDGE_DOMAIN"]}
Before `flybridge handlers`, `dlq`, `groups` or `replay` there:
  export FLYBRIDGE_APP_ID={APP_ID} FLYBRIDGE_REDIS_URL={told["FLYBRIDGE_REDIS_URL"]}

Ready. ^C ends it.
"""
