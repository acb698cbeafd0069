"""Warns of settings that are valid but serve nobody well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flybridge.bridge.config.bounds import LONGEST_HEARTBEAT, SMALLEST_BUFFER
from flybridge.bridge.config.dotnet_names import number, truth
from flybridge.bridge.config.layers import Given
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Advice:
    """A setting to warn of."""

    name: str
    """As it was written."""
    given: Any
    used: str
    reason: str


def unwise(given: Mapping[str, Given]) -> tuple[Advice, ...]:
    """What to warn of among these settings."""
    found = ((setting, given[setting], check(given[setting])) for setting, check in _CHECKS.items()
             if setting in given)  # fmt: skip
    return tuple(
        Advice(each.written.shown, each.written.value, f"{setting}={each.value}", reason)
        for setting, each, reason in found
        if reason
    )


def warn(found: Iterable[Advice]) -> None:
    """Log them; call it once, at the start."""
    for each in found:
        log.warning(
            "setting.unwise", name=each.name, given=each.given, used=each.used, reason=each.reason
        )


def _ping_interval(given: Given) -> str:
    milliseconds = number(given.written.value)
    if (
        given.value == LONGEST_HEARTBEAT
        and milliseconds
        and milliseconds > LONGEST_HEARTBEAT * 1000
    ):
        return "only with a ping every 24 s a half-open connection is noticed within 45 s"
    return ""


def _attempts(given: Given) -> str:
    if (number(given.value) or 0) > 0:
        return "a bridge that gives up is deaf until it is started again; 0 tries for ever"
    return ""


def _reconnect(given: Given) -> str:
    if truth(given.value) is False:
        return "Feishu closes connections as a matter of routine; the bridge ends with its first"
    return ""


def _buffer(given: Given) -> str:
    if 0 < (number(given.value) or 0) < SMALLEST_BUFFER:
        return (
            f"below {SMALLEST_BUFFER} large events would come too slowly to be acked in time; the "
            "system's buffer is used, and frames of any size are put together"
        )
    return ""


def _queue(given: Given) -> str:
    if truth(given.value) is False:
        return "what Redis cannot take at once is answered 500, and Feishu pushes it again later"
    return ""


_CHECKS: Mapping[str, Callable[[Given], str]] = {
    "ping_interval": _ping_interval,
    "max_reconnect_attempts": _attempts,
    "auto_reconnect": _reconnect,
    "receive_buffer_size": _buffer,
    "message_queue": _queue,
}
