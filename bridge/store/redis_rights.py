"""Recognises commands and keys that Redis refuses to us, and says how to allow or mend them."""

from __future__ import annotations

import re

from redis.exceptions import NoPermissionError, ResponseError

from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

_REFUSED = re.compile(r"NOPERM|no permissions? to |executing the script can't ", re.IGNORECASE)
"""As a reply to a command; from within a script; and as Redis 7.0 says it there."""

_NAMED = re.compile(r"the '([^']+)' command")
_OBJECT = re.compile(r"access (a|one of the|at least one of the) keys?|to the channel|a channel")
_CALLED = re.compile(r"(?:call|try)\('([A-Z]+)'(?:, '([A-Z]+)')?")
_CONTAINERS = ("XINFO", "XGROUP")
"""Commands of which each subcommand is a right of its own."""


def is_denied(error: Exception) -> bool:
    """Whether Redis refuses our user a command, a key or a channel."""
    return isinstance(error, NoPermissionError) or _REFUSED.search(str(error)) is not None


def kind(error: Exception) -> str:
    """The denied command, if Redis names it, else what Redis said: each is reported once."""
    named = _NAMED.search(str(error))
    return named[1] if named else str(error)


def cure(error: Exception, script: str = "") -> str:
    """What to do about a denied command.

    Args:
        script: the text of the script that sent the command, if one did: Redis 7.0 does not name
            it.
    """
    if _OBJECT.search(str(error)):
        return "allow this user all keys of the app: ACL SETUSER <user> ~flybridge:{<app id>}:*"
    named = _NAMED.search(str(error))
    rights = [named[1]] if named else rights_of(script)
    if not rights:
        return "ACL LOG names the command; allow it: ACL SETUSER <user> +<command>"
    rules = " ".join(f"+{each}" for each in rights)
    return f"allow this user what it needs: ACL SETUSER <user> {rules}"


def rights_of(script: str) -> list[str]:
    """The rights that the commands of a script need, sorted."""
    found = {
        f"{command}|{second}" if command in _CONTAINERS else command
        for command, second in _CALLED.findall(script)
    }
    return sorted(right.lower() for right in found)


class UnusableKey:
    """Logs once that a key cannot be used, until a command on it succeeds again.

    Args:
        stops: what cannot go on until then, as the end of a sentence.
        script: the text of the script that uses the key; empty: none does.
    """

    def __init__(self, key: str, stops: str, script: str = "") -> None:
        self._key = key
        self._stops = stops
        self._script = script
        self._told = False

    def failed(self, error: Exception) -> None:
        """A command on it failed. Errors that do not concern the key are ignored."""
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
