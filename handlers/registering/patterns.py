"""Checks the event types that authors write, resolves aliases, and warns of misspellings."""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from flybridge.handlers.base import Context, Run
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.event import Event
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.types import ALIASES, KNOWN_TYPES, STATUS_OF_ALIAS, canonical, matches

log = get_logger(__name__)

_PATTERN = re.compile(r"[A-Za-z0-9_.*]{1,128}")


def check(patterns: tuple[str, ...], where: str) -> None:
    """Refuse patterns that no event type can match.

    Raises:
        RegistrationInvalid: there is no pattern, or one has a character that no event type has.
    """
    if not patterns:
        raise RegistrationInvalid(
            f"{where}: no event types; name some, e.g. 'im.message.receive_v1', or '*' for all"
        )
    for pattern in patterns:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            raise RegistrationInvalid(
                f"{where}: {pattern!r} is not an event type; use letters, digits, `_`, `.` and `*`"
            )


def resolve(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Replace aliases by the names that Feishu sends; each name once, in the order given."""
    return tuple(dict.fromkeys(canonical(pattern) for pattern in patterns))


def narrow(run: Run, patterns: tuple[str, ...]) -> Run:
    """A handler that skips events whose status none of the patterns means.

    `approval.approval.approved_v1` is an alias of `approval_instance`, which Feishu sends for every
    status: without this, a handler of approvals would run for rejections, too. An event whose type
    is the alias itself, as a gateway may send it, has that status.
    """
    aliases = [pattern for pattern in patterns if pattern in STATUS_OF_ALIAS]
    others = [pattern for pattern in patterns if pattern not in STATUS_OF_ALIAS]
    statuses = [STATUS_OF_ALIAS[alias] for alias in aliases]  # a status may be unhashable
    narrowed = {ALIASES[alias] for alias in aliases}
    narrowed = {name for name in narrowed if not any(matches(other, name) for other in others)}
    if not narrowed:
        return run

    def run_if_meant(event: Event, context: Context) -> Any:
        if canonical(event.type) in narrowed and _status(event) not in statuses:
            return None
        return run(event, context)

    return run_if_meant


def _status(event: Event) -> object:
    return STATUS_OF_ALIAS.get(event.type) or event.body.get("status")


def warn_of_aliases(patterns: tuple[str, ...]) -> None:
    """Log the aliases among the patterns, each once per process."""
    for pattern in patterns:
        if pattern in ALIASES:
            _warn_of_alias(pattern)


@cache
def _warn_of_alias(alias: str) -> None:
    status = STATUS_OF_ALIAS.get(alias)
    narrowed = {"status": status} if status else {}
    log.warning("alias.resolved", alias=alias, event_type=ALIASES[alias], **narrowed)


def warn_of_misspelling(patterns: tuple[str, ...], where: str) -> None:
    """Log types that Feishu is not known to send, and patterns that match no known type."""
    for pattern in patterns:
        if any(matches(pattern, known) for known in KNOWN_TYPES):
            continue
        near = difflib.get_close_matches(pattern.replace("*", ""), KNOWN_TYPES, n=1, cutoff=0.9)
        log.warning(
            "event_type.unknown",
            given=pattern,
            where=where,
            hint="Feishu is not known to send events of this type, so the handler may never run; "
            "`flybridge events` lists the types",
            **({"did_you_mean": near[0]} if near else {}),
        )
