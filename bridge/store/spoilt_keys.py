"""Logs what Redis refuses: keys that somebody has edited by hand, and missing rights, each once."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping

from redis import Redis
from redis.exceptions import RedisError

from flybridge.bridge.errors import EXIT_REDIS, BridgeError
from flybridge.bridge.store.redis_rights import cure, is_denied, kind
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

MAX_TOLD_KEYS = 10_000
"""Keys that are not told of again."""

DENIAL_REMEMBERED = 60.0
"""Seconds without a denial after which the next one is told of again."""


class StreamSpoilt(BridgeError):
    """A key is of a wrong type; somebody wrote it by hand."""

    exit_code = EXIT_REDIS


def spoilt(key: str, error: Exception) -> StreamSpoilt:
    """What to tell whoever looks at a key of a wrong type."""
    return StreamSpoilt(f"{key} is spoilt ({error}); see what wrote it, then rename or delete it.")


class Denials:
    """Remembers which rights Redis has denied of late; callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met: dict[str, float] = {}

    def is_news(self, error: Exception) -> bool:
        """Note this denial; whether it is to be told of."""
        now, right = time.monotonic(), kind(error)
        with self._lock:
            before = self._met.get(right, -math.inf)
            self._met[right] = now
        return now - before > DENIAL_REMEMBERED


class SpoiltKeys:
    """Logs each spoilt key once; callable from any thread.

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
        """
        if is_denied(error):
            if self._denials.is_news(error):
                log.error("redis.denied", error=str(error), cure=cure(error))
            return
        keys = self._wrong(expected) or [next(iter(expected))]
        with self._lock:
            new = [key for key in keys if key not in self._told]
            if len(self._told) > MAX_TOLD_KEYS:
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
