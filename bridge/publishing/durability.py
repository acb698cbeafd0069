"""What must hold before an event is acked: Redis has it in memory, on disk, or on replicas.

On disk means `appendfsync always`: the reply then comes after the fsync. WAITAOF is sent only to
notice a server without an append-only file, as after a fail-over. With `everysec` it cannot be
trusted: Valkey up to 9.1.2 and Redis before its fix 13793 answer up to a second before the fsync.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from flybridge.bridge.errors import RedisUnfit, RedisUnreachable
from flybridge.bridge.store.client import text
from flybridge.bridge.store.raw_pipeline import pack
from flybridge.handlers.loggers import get_logger

MAX_CONNECTIONS = 24
"""Connections that may wait at the same time: ten batches a second, each for the budget of 2 s."""

ON_DISK = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
"""What makes Redis answer after the fsync. With `no-appendfsync-on-rewrite` it skips the fsync
while it rewrites its file, even with `always`."""

_PROFILE = re.compile(r"none|aof|replica:(?P<replicas>[1-9]\d*)")

log = get_logger(__name__)


class Undurable(RedisError):
    """Redis took the entry, but it was not durable in time."""


@dataclass(frozen=True, slots=True)
class Durability:
    """One profile of durability.

    Attributes:
        profile: as the operator gave it.
        command: the command that waits for it, without its timeout; empty: nothing to wait for.
        wanted: copies that must be confirmed.
    """

    profile: str
    command: tuple[str | int, ...] = ()
    wanted: int = 0

    @classmethod
    def parse(cls, profile: str) -> Durability:
        """Read `none`, `aof` or `replica:N`.

        Raises:
            ValueError: it is none of them.
        """
        found = _PROFILE.fullmatch(profile)
        if found is None:
            raise ValueError(f"durability is {profile!r}; give none, aof or replica:N")
        if profile == "aof":
            return cls(profile, ("WAITAOF", 1, 0), wanted=1)
        if profile == "none":
            return cls(profile)
        replicas = int(found["replicas"])
        return cls(profile, ("WAIT", replicas), wanted=replicas)

    @property
    def connections(self) -> int:
        """Connections over which batches may be on their way at the same time."""
        return MAX_CONNECTIONS if self.command else 1

    def wait(self, timeout: float) -> bytes:
        """The packed command that waits for `timeout` seconds at most. Redis: 0 means for ever."""
        return pack(*self.command, max(1, int(timeout * 1000)))

    def judge(self, answer: Any) -> RedisError | None:
        """Why the batch before this answer is not durable; None when it is.

        A broken connection is returned as its own error, since the batch may be sent again then.
        """
        if isinstance(answer, ResponseError):
            return Undurable(str(answer))
        if isinstance(answer, RedisError):
            return answer
        confirmed = answer[0] if isinstance(answer, list) else answer
        if confirmed >= self.wanted:
            return None
        return Undurable(f"{self.profile}: {confirmed} of {self.wanted} confirmed in time")


NONE = Durability.parse("none")


async def fit(durability: Durability, redis: Redis) -> Durability:
    """Check that this server supports the profile; return what to wait for there.

    Raises:
        RedisUnfit: it does not.
        RedisUnreachable: no answer.
    """
    try:
        if durability.profile == "aof":
            await _look_at_aof(redis)
        elif durability.wanted:
            await _look_for_replicas(durability, redis)
        return await _try(durability, redis) if durability.wanted else durability
    except (RedisError, OSError) as error:
        raise RedisUnreachable(
            f"Redis did not say how durable it is ({error}); check that it is well."
        ) from error


async def _look_at_aof(redis: Redis) -> None:
    try:
        config = await redis.config_get("*append*")
    except ResponseError as error:  # a managed Redis
        cure = f"make sure yourself that {' and '.join(map(' is '.join, ON_DISK.items()))}"
        log.warning("durability.unchecked", profile="aof", error=str(error), cure=cure)
        return
    found = {text(name): text(value) for name, value in config.items()}
    wrong = [name for name, value in ON_DISK.items() if found.get(name) != value]
    if wrong:
        raise RedisUnfit(
            "FLYBRIDGE_DURABILITY is aof, but this Redis answers before an event is on disk "
            f"({', '.join(f'{name} is {found.get(name)}' for name in wrong)}); set it: "
            f"{', '.join(f'CONFIG SET {name} {ON_DISK[name]}' for name in wrong)}, and in its "
            "configuration file."
        )


async def _try(durability: Durability, redis: Redis) -> Durability:
    """Send the waiting command once: if Redis refuses it, every event would be refused."""
    profile, command = durability.profile, durability.command
    try:
        await redis.execute_command(*command, 1)  # type: ignore[no-untyped-call]
    except NoPermissionError as error:
        raise RedisUnfit(
            f"Redis does not let this user wait until events are durable ({error}); allow it: "
            f"ACL SETUSER <user> +{str(command[0]).lower()}."
        ) from error
    except ResponseError as error:
        if profile != "aof":
            raise RedisUnfit(
                f"FLYBRIDGE_DURABILITY is {profile}, but Redis cannot wait for replicas ({error}); "
                "set it to none or aof, or use a Redis that can."
            ) from error
        if "unknown command" in str(error):  # Redis before 7.2
            return replace(durability, command=(), wanted=0)
        raise RedisUnfit(
            f"FLYBRIDGE_DURABILITY is aof, but Redis keeps no append-only file ({error}); "
            "set it: CONFIG SET appendonly yes, and in its configuration file."
        ) from error
    return durability


async def _look_for_replicas(durability: Durability, redis: Redis) -> None:
    """Warn if replicas are missing. The bridge starts all the same; Feishu keeps the events."""
    try:
        connected = int((await redis.info("replication")).get("connected_slaves", 0))
    except ResponseError as error:
        cure = f"make sure yourself that enough replicas are connected: {durability.wanted}"
        log.warning("durability.unchecked", profile=durability.profile, error=str(error), cure=cure)
        return
    if connected < durability.wanted:
        log.warning(
            "durability.short",
            profile=durability.profile,
            replicas=connected,
            wanted=durability.wanted,
            cure="start the missing replicas; until then every event is answered 500 and comes "
            "again from Feishu",
        )
