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
    return tuple(
        Advice(each.written.shown, each.written.value, f"{setting}={each.value}", reason)
        for setting, (is_unwise, reason) in _CHECKS.items()
        if (each := given.get(setting)) and is_unwise(each)
    )


def warn(found: Iterable[Advice]) -> None:
    """Log them; call it once, at the start."""
    for each in found:
        log.warning(
            "setting.unwise", name=each.name, given=each.given, used=each.used, reason=each.reason
        )


def _is_lengthened(given: Given) -> bool:
    """Whether a longer interval was asked for, in milliseconds, than there is."""
    asked = number(given.written.value) or 0
    return given.value == LONGEST_HEARTBEAT and asked > LONGEST_HEARTBEAT * 1000


def _is_above_zero(given: Given) -> bool:
    return (number(given.value) or 0) > 0


def _is_off(given: Given) -> bool:
    return truth(given.value) is False


def _is_small(given: Given) -> bool:
    return 0 < (number(given.value) or 0) < SMALLEST_BUFFER


_CHECKS: Mapping[str, tuple[Callable[[Given], bool], str]] = {
    "ping_interval": (
        _is_lengthened,
        "only with a ping every 24 s a half-open connection is noticed within 45 s",
    ),
    "max_reconnect_attempts": (
        _is_above_zero,
        "a bridge that gives up is deaf until it is started again; 0 tries for ever",
    ),
    "auto_reconnect": (
        _is_off,
        "Feishu closes connections as a matter of routine; the bridge ends with its first",
    ),
    "receive_buffer_size": (
        _is_small,
        f"below {SMALLEST_BUFFER} large events would come too slowly to be acked in time; the "
        "system's buffer is used, and frames of any size are put together",
    ),
    "message_queue": (
        _is_off,
        "what Redis cannot take at once is answered 500, and Feishu pushes it again later",
    ),
}
