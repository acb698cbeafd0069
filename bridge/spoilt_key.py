"""Tells of a key that somebody has overwritten by hand."""

from __future__ import annotations

from redis.exceptions import ResponseError

from handlers.loggers import get_logger

log = get_logger("bridge.spoilt_key")


class SpoiltKey:
    """One key; told of once, until a command on it succeeds again.

    Args:
        key: its name.
        stops: what cannot go on before it is deleted, as the end of a sentence.
    """

    def __init__(self, key: str, stops: str) -> None:
        self._key = key
        self._stops = stops
        self._told = False

    def failed(self, error: Exception) -> None:
        """A command on it has failed; if it is not for its type, that is no news of the key."""
        if self._told or not isinstance(error, ResponseError) or "WRONGTYPE" not in str(error):
            return
        self._told = True
        hint = f"somebody wrote it by hand; delete this key, or {self._stops}"
        log.error("key.spoilt", key=self._key, error=str(error), hint=hint)

    def succeeded(self) -> None:
        """A command on it has succeeded."""
        self._told = False
