"""Translates the option names of the C# service, and spellings of ours, into our settings.

Units differ (milliseconds there, seconds here), and some names. `ReconnectDelayMs`,
`reconnect_delay_ms` and `RECONNECT_DELAY_MS` are one name; the same holds for our names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from flybridge.bridge.config.bounds import LONGEST_HEARTBEAT
from flybridge.bridge.config.layers import LOGGING_ON, Given, Layer, Written

_TRUE = {"true", "t", "yes", "y", "on", "1"}
_FALSE = {"false", "f", "no", "n", "off", "0"}


def _unchanged(value: Any) -> Any:
    return value


def _seconds(milliseconds: Any) -> Any:
    """What is no number is returned as it is, for the settings to refuse."""
    count = number(milliseconds)
    return f"{milliseconds} ms" if count is None else count / 1000


def _ping_interval(milliseconds: Any) -> Any:
    seconds = _seconds(milliseconds)
    too_rare = isinstance(seconds, float) and LONGEST_HEARTBEAT < seconds < math.inf
    return LONGEST_HEARTBEAT if too_rare else seconds


def _log_level(enabled: Any) -> Any:
    switch = truth(enabled)
    return f"{enabled}?" if switch is None else LOGGING_ON if switch else "off"


@dataclass(frozen=True, slots=True)
class SeedOption:
    """One option of the C# service."""

    name: str
    setting: str
    """Our name."""
    convert: Callable[[Any], Any] = _unchanged
    advice: str = ""
    """What to give; empty: the setting's own description."""


_MILLISECONDS = "give milliseconds, more than 0"

OPTIONS = (
    SeedOption("AppId", "app_id"),
    SeedOption("AppSecret", "app_secret"),
    SeedOption("AutoReconnect", "auto_reconnect"),
    SeedOption("MaxReconnectAttempts", "max_reconnect_attempts"),
    SeedOption(
        "ReconnectDelayMs", "reconnect_delay", _seconds, f"{_MILLISECONDS} and up to 120000"
    ),
    SeedOption(
        "HeartbeatIntervalMs", "ping_interval", _ping_interval, "give milliseconds, 1000 or more"
    ),
    SeedOption("ConnectionTimeoutMs", "connection_timeout", _seconds, _MILLISECONDS),
    SeedOption("ReceiveBufferSize", "receive_buffer_size"),
    SeedOption("EnableLogging", "log_level", _log_level, "give true or false"),
    SeedOption("EnableMessageQueue", "message_queue"),
    SeedOption("MessageQueueCapacity", "message_queue_capacity"),
    SeedOption("EnableMultiHandlerMode", "multi_handler"),
    SeedOption("ParallelMultiHandlers", "parallel_handlers"),
)


def translate(written: Iterable[Written], settings: Collection[str]) -> Layer:
    """The options of one source as our settings. Options for none of `settings` are left out."""
    given: dict[str, Given] = {}
    problems: list[str] = []
    unknown: list[str] = []
    for each in written:
        setting, option = meaning(each.name, settings)
        if not setting:
            unknown.append(f"{each.shown} is no option; {_advice(each.name, settings)}")
        elif setting in settings and each.value is not None:
            new = _given(each, option)
            problems += _contradiction(given.get(setting), new)
            if not (new.value is LOGGING_ON and setting in given):
                given[setting] = new
    return Layer(given, tuple(problems), tuple(unknown))


def meaning(name: str, settings: Collection[str]) -> tuple[str, SeedOption | None]:
    """The setting that a name means ('': none), and the C# option if it is one's name."""
    spelt = spelling(name)
    ours = next((setting for setting in settings if spelling(setting) == spelt), "")
    if ours:
        return ours, None
    option = next((option for option in OPTIONS if spelling(option.name) == spelt), None)
    return (option.setting, option) if option else ("", None)


def spelling(name: str) -> str:
    """The same text for all ways to write a name."""
    return name.replace("_", "").casefold()


def nearest(name: str, settings: Collection[str]) -> str:
    """The setting or option with the most similar name, written in the same style; '' if none."""
    names = {spelling(each): each for each in (*settings, *(option.name for option in OPTIONS))}
    near = difflib.get_close_matches(spelling(name), names, 1)
    found = names[near[0]] if near else ""
    return _snake(found) if name.islower() else found


def _snake(name: str) -> str:
    """`reconnect_delay_ms` of `ReconnectDelayMs`."""
    return "".join(f"_{each}" if each.isupper() else each for each in name).strip("_").lower()


def _given(written: Written, option: SeedOption | None) -> Given:
    if option is None:
        return Given(written.value, written)
    return Given(option.convert(written.value), written, option.advice)


def _contradiction(old: Given | None, new: Given) -> list[str]:
    """A sentence if two spellings of one setting differ, without the values."""
    if old is None or _agree(old.value, new.value):
        return []
    return [
        f"{old.written.shown} and {new.written.shown} mean the same and differ; keep one of them."
    ]


def _agree(one: Any, other: Any) -> bool:
    for level, beside in ((one, other), (other, one)):
        if beside is LOGGING_ON:
            return level is LOGGING_ON or str(level).casefold() != "off"
    return same(one, other)


def _advice(name: str, settings: Collection[str]) -> str:
    near = nearest(name, settings)
    return f"did you mean {near}?" if near else "leave it out."


def truth(value: Any) -> bool | None:
    """Of true, "yes", 1 and the like."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    return True if word in _TRUE else False if word in _FALSE else None


def number(value: Any) -> float | None:
    """Of 5, "5" and 5.0, but not of true."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: `5` and "5.0", true and "on"."""
    return one == other or bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    for reading in (number(value), truth(value)):
        if reading is not None:
            return reading
    return value.casefold() if isinstance(value, str) else value
