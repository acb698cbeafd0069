"""`flybridge dev`: everything on this machine, in one process tree, until ^C.

Embedded Redis, local Feishu, bridges and a worker, whose logs share the terminal. Nothing of it is
for production: what it keeps is gone at the end.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import BridgeError
from bridge.local import actors
from bridge.local.actors import Actor
from bridge.local.feishu import APP_ID, APP_SECRET, LocalFeishu
from bridge.local.valkey import EmbeddedRedis


class ChildRefused(BridgeError):
    """A child ended by itself, and would again; it has said why. We end as it did."""

    def __init__(self, name: str, status: int) -> None:
        self.exit_code = status
        super().__init__(f"{name} ended with {status}; its line `flybridge: …` above says why.")


LOOK = 0.5
"""Seconds between looks at the children."""

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: the arguments of `flybridge` by the name of each child."""

    parts: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]

    @classmethod
    def of(
        cls, bridges: int, pool: str, handlers: str, log_level: str, feishu: str, redis: str
    ) -> Cast:
        """Some bridges and one worker."""
        parts: dict[str, Sequence[str]] = {
            f"bridge-{number}": ["run"] for number in range(1, bridges + 1)
        }
        parts["worker"] = ["worker", "--pool", pool, "--handlers", handlers]
        environment = {
            "FLYBRIDGE_APP_ID": APP_ID,
            "FLYBRIDGE_APP_SECRET": APP_SECRET,
            "FLYBRIDGE_DOMAIN": feishu,
            "FLYBRIDGE_REDIS_URL": redis,
            "FLYBRIDGE_LOG_FORMAT": "console",
            "FLYBRIDGE_LOG_LEVEL": log_level,
            # Short, so that a killed leader is replaced before one has lost patience.
            "FLYBRIDGE_LEASE_DURATION": "3",
            "FLYBRIDGE_RENEW_DEADLINE": "2",
            "FLYBRIDGE_RETRY_PERIOD": "0.5",
            "FLYBRIDGE_EVENT_LEASE": "10",
        }
        return cls(parts, environment)


async def dev(
    *,
    port: int,
    bridges: int,
    pool: str,
    handlers: str,
    log_level: str,
    stop: asyncio.Event,
    say: Say,
) -> None:
    """Run the tree until `stop` is set; a child that is killed is started again.

    Raises:
        ChildRefused: a child would not run: a handler module that fails to import, for instance.
        OSError: the port is taken.
        RedisUnreachable: there is no Redis or Valkey server on this machine.
    """
    with EmbeddedRedis() as redis:
        async with LocalFeishu(port=port) as feishu:
            cast = Cast.of(bridges, pool, handlers, log_level, feishu.url, redis.url)
            playing = {name: _start(cast, name) for name in cast.parts}
            say(_welcome(cast, playing, handlers))
            try:
                await _watch(cast, playing, stop, say)
            finally:
                # In a thread: the local Feishu must go on answering while they say goodbye.
                await asyncio.to_thread(actors.stop, list(playing.values()))


async def _watch(cast: Cast, playing: dict[str, Actor], stop: asyncio.Event, say: Say) -> None:
    while not stop.is_set():
        for name, actor in playing.items():
            status = actor.process.poll()
            if status is None:
                continue
            if status > 0:
                raise ChildRefused(name, status)
            say(f"{name} was ended by {_cause(status)}; starting it again")
            playing[name] = _start(cast, name)
        try:
            await asyncio.wait_for(stop.wait(), LOOK)
        except TimeoutError:
            continue


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status else "itself"


def _start(cast: Cast, name: str) -> Actor:
    return actors.start(name, cast.parts[name], cast.environment, log=None)


def _welcome(cast: Cast, playing: Mapping[str, Actor], handlers: str) -> str:
    pids = "   ".join(f"{name} {actor.process.pid}" for name, actor in playing.items())
    feishu = cast.environment["FLYBRIDGE_DOMAIN"]
    return f"""\
flybridge dev: nothing leaves this machine
Redis:     {cast.environment["FLYBRIDGE_REDIS_URL"]}   embedded, in memory, gone at the end
Feishu:    {feishu}   local, on the real protocol
Handlers:  {handlers}
Processes: {pids}

Elsewhere: flybridge trigger im.message.receive_v1 --url {feishu}
For `flybridge handlers`, `dlq`, `groups` and `replay` there:
  export FLYBRIDGE_APP_ID={APP_ID} FLYBRIDGE_REDIS_URL={cast.environment["FLYBRIDGE_REDIS_URL"]}

Ready. ^C ends it.
"""
