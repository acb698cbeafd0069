"""Warns when no bridge of the worker's app is at work on its Redis: no event will come then."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from flybridge.bridge.store.redis_rights import cure, is_denied
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

LOOK_PERIOD = 10.0
"""Seconds between two looks."""

START_UP = 15.0
"""Seconds that a bridge may take to start after a worker."""

SILENT = 300.0
"""Seconds since a bridge wrote its status after which it counts as gone."""

PAGE = 1_000
"""Keys that one call looks at."""

SCANNED = 20_000
"""Keys that are looked at for bridges of other apps, at most."""


class Bridges:
    """Looks for the bridges of one app; called by one thread.

    Args:
        place: where the Redis is, for people.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        place: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._place = place
        self._clock = clock
        self._looked = -LOOK_PERIOD
        self._seen = clock()
        self._missing = self._denied = False

    def look(self) -> None:
        """Log when no bridge has been there for a while, and when there is one again.

        Raises:
            redis.RedisError: nothing is known.
        """
        now = self._clock()
        if now - self._looked < LOOK_PERIOD:
            return
        self._looked = now
        # The key is spoilt, or this user may not read it: that stops no worker.
        try:
            self._judge(now)
        except ResponseError as error:
            self._tell_denied(error)
        else:
            self._denied = False

    def _tell_denied(self, error: ResponseError) -> None:
        if is_denied(error) and not self._denied:
            self._denied = True
            hint = f"{cure(error)}; until then nobody is told when all bridges are gone"
            log.warning("redis.denied", key=self._keys.bridges, error=str(error), cure=hint)

    def _judge(self, now: float) -> None:
        if self._living():
            if self._missing:
                log.info("bridge.found", app_id=self._keys.app_id)
            self._seen, self._missing = now, False
        elif not self._missing and now - self._seen >= START_UP:
            self._missing = True
            self._warn()

    def _living(self) -> int:
        rows: Any = self._redis.hgetall(self._keys.bridges)
        seconds, _ = self._redis.time()
        return sum(abs(seconds - _written_at(row)) < SILENT for row in rows.values())

    def _warn(self) -> None:
        others: list[str] = []
        with suppress(ResponseError):
            others = self._others()
        log.warning(
            "bridge.missing",
            app_id=self._keys.app_id,
            redis=self._place,
            other_apps=" ".join(others),
            hint="no bridge of this app has been at work with this Redis for a while, so no new "
            "event comes; start one with flybridge run, or give this worker the FLYBRIDGE_APP_ID "
            "and FLYBRIDGE_REDIS_URL (its database included) of the bridges",
        )

    def _others(self) -> list[str]:
        """Apps with bridges in the same database, as far as they are found soon."""
        names: list[str] = []
        cursor, pattern = 0, Keys("*").bridges
        for _ in range(SCANNED // PAGE):
            answer: Any = self._redis.scan(cursor, match=pattern, count=PAGE)
            cursor, found = answer
            names += [name.decode(errors="replace") for name in found]
            if not cursor:
                break
        return sorted(name.split("{", 1)[-1].split("}", 1)[0] for name in names)[:5]


def _written_at(row: bytes) -> float:
    """Unix seconds by Redis' clock."""
    try:
        at = msgspec.json.decode(row)["at"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return 0.0
    return at / 1000 if isinstance(at, int) else 0.0
