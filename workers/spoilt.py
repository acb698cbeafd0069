"""Keys of Redis that somebody has edited by hand: told once, they stop nothing but themselves."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.errors import EXIT_REDIS, BridgeError
from bridge.redis_rights import cure, is_denied
from handlers.loggers import get_logger
from workers.denials import Denials

log = get_logger("workers.spoilt")

REMEMBERED = 10_000
"""Keys that are not told of again."""


class StreamSpoilt(BridgeError):
    """A key holds something else than it should; somebody wrote it by hand."""

    exit_code = EXIT_REDIS


def spoilt(key: str, error: Exception) -> StreamSpoilt:
    """What to tell whoever looks at a key of a wrong type."""
    return StreamSpoilt(f"{key} is spoilt ({error}); see what wrote it, then rename or delete it.")


def is_spoilt(answer: Any) -> bool:
    """Whether an answer is an error about the content of a key, not about Redis itself.

    Only the former concerns one key; everything else (no memory, loading, read-only, no such
    group, ...) would meet any other call as well.
    """
    if type(answer) is not ResponseError:
        return False
    text = str(answer)
    if "WRONGTYPE" in text:
        return True
    # Redis puts a code in capitals before every error but the plain ones.
    coded = text.partition(" ")[0].isupper()
    of_a_script = "user_script" in text and "Script killed" not in text
    return of_a_script and not coded and not is_denied(answer)


class SpoiltKeys:
    """Tells of each spoilt key once; callable from any thread.

    Args:
        redis: asked for the types of keys, after an error only.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._denials = Denials()

    def tell(self, expected: Mapping[str, str], error: Exception, **fields: str) -> None:
        """Log `key.spoilt` for the keys that a command has failed on.

        Args:
            expected: the keys of the command, and the type that each should have. If all have it,
                the content of the first one is to blame.
            error: what Redis said.
            fields: what else to log, such as the event id.
        """
        if is_denied(error):
            if self._denials.is_news(error):
                log.error("redis.denied", error=str(error), cure=cure(error))
            return
        keys = self._wrong(expected) or [next(iter(expected))]
        with self._lock:
            new = [key for key in keys if key not in self._told]
            if len(self._told) > REMEMBERED:
                self._told.clear()
            self._told.update(new)
        for key in new:
            log.error("key.spoilt", key=key, error=str(error), **fields,
                      hint="somebody wrote it by hand; rename or delete this key, and what waits "
                      "for it goes on by itself")  # fmt: skip

    def well(self, key: str) -> None:
        """A command on the key has succeeded: should it be spoilt again, that is told again."""
        if self._told:
            with self._lock:
                self._told.discard(key)

    def _wrong(self, expected: Mapping[str, str]) -> list[str]:
        names = list(expected)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.type(name)
                types: list[bytes] = pipeline.execute()
        except (RedisError, OSError):
            return names
        return [
            name
            for name, found in zip(names, types, strict=True)
            if found.decode() not in (expected[name], "none")
        ]
