"""Settings from several sources: who said what, and who wins.

A value that turns out wrong is reported under the name by which it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

LOGGING_ON: Final = object()
"""As a log level: the level of the layers below, but not `off`."""

_RIVALS = {"app_secret": "app_secret_file", "app_secret_file": "app_secret"}
"""Alternatives: the one given later replaces the other."""


@dataclass(frozen=True, slots=True)
class Written:
    """An option as somebody wrote it."""

    name: str
    value: Any = field(repr=False)  # may be a secret
    shown: str
    """Its name in sentences: a variable, or `settings.json: Feishu:AppId`."""


@dataclass(frozen=True, slots=True)
class Given:
    """The value of a setting, and what it was made from."""

    value: Any = field(repr=False)
    written: Written
    advice: str = ""
    """What to give, if it differs from the setting's own description."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source says."""

    given: Mapping[str, Given]
    """By setting."""
    problems: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """A sentence for each unknown name."""


def overlay(layers: Iterable[Layer]) -> dict[str, Given]:
    """Merge the settings of all layers; later ones win."""
    merged: dict[str, Given] = {}
    for layer in layers:
        for setting, given in layer.given.items():
            if given.value is LOGGING_ON:
                _wake(merged)
                continue
            merged[setting] = given
            rival = _RIVALS.get(setting)
            if rival and rival not in layer.given:
                merged.pop(rival, None)
    return merged


def _wake(merged: dict[str, Given]) -> None:
    level = merged.get("log_level")
    if level and str(level.value).casefold() == "off":
        del merged["log_level"]
