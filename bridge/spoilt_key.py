"""Tells of a key that we cannot use: overwritten by hand, or our user lacks a right."""

from __future__ import annotations

from redis.exceptions import ResponseError

from bridge.redis_rights import cure, is_denied
from handlers.loggers import get_logger

log = get_logger("bridge.spoilt_key")


class SpoiltKey:
    """One key; told of once, until a command on it succeeds again.

    Args:
        key: its name.
        stops: what cannot go on before that is mended, as the end of a sentence.
        script: the text of the script that uses it; empty: none does.
    """

    def __init__(self, key: str, stops: str, script: str = "") -> None:
        self._key = key
        self._stops = stops
        self._script = script
        self._told = False

    def failed(self, error: Exception) -> None:
        """A command on it has failed; if for another reason, that is no news of it."""
        if self._told or not isinstance(error, ResponseError):
            return
        if is_denied(error):
            self._tell("redis.denied", error, cure=f"{cure(error, self._script)}; or {self._stops}")
        elif "WRONGTYPE" in str(error):
            hint = f"somebody wrote it by hand; delete this key, or {self._stops}"
            self._tell("key.spoilt", error, hint=hint)

    def succeeded(self) -> None:
        """A command on it has succeeded."""
        self._told = False

    def _tell(self, event: str, error: Exception, **what_to_do: str) -> None:
        self._told = True
        log.error(event, key=self._key, error=str(error), **what_to_do)
