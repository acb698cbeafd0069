"""Reads settings from a TOML, JSON or YAML file, or from a mapping.

An error says where in the file it is and never repeats the content, which may be secret.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from flybridge.bridge.config.dotnet_names import spelling
from flybridge.bridge.config.layers import Written
from flybridge.bridge.config.text_files import FileUnreadable, read_text
from flybridge.bridge.errors import SettingsInvalid

SECTION = "Feishu"
"""The section of a file that holds the settings, unless another one is named."""

_NESTED = "WebSocket"
"""A section inside the section, whose options count as if they stood one level up."""

_IDENTITY = ("app_id",), ("app_secret", "app_secret_file")
"""Options that may also stand in the sections around it."""

_Levels = list[tuple[str, Mapping[Any, Any]]]
"""Mappings, each with the path that precedes its names."""


def read(source: object, section: str = SECTION) -> tuple[Written, ...]:
    """The options of one section; app id and secret may also stand in the sections around it.

    Args:
        source: the path of a .toml, .json, .yaml or .yml file, or a mapping.
        section: names from the top, with colons: `Production:WebSocket`; '' for the top itself.

    Raises:
        SettingsInvalid: what is wrong with the file or the section, and where.
    """
    if not isinstance(section, str):
        raise SettingsInvalid(
            [f"section={section!r} is no text; give names with colons, like {SECTION!r}."]
        )
    where, root = _root(source)
    levels = _descend(where, root, [name for name in section.split(":") if name])
    options = _options(*levels[-1])
    return (*options, *_inherited(levels[:-1], options))


def _root(source: object) -> tuple[str, Any]:
    if isinstance(source, Mapping):
        return "", source
    if not isinstance(source, str | Path):
        raise SettingsInvalid(
            [f"Settings come from a path or a mapping, not from {type(source).__name__}; give one."]
        )
    if isinstance(source, str) and set(source) & set("\n{"):
        raise SettingsInvalid(
            ["Settings come from a path, and this is the text of a file; give its path, or a "
             "mapping of what it says."]
        )  # fmt: skip
    path = Path(source)
    return f"{path}: ", _parsed(path)


def _parsed(path: Path) -> Any:
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise SettingsInvalid(
            [f"{path} is of no known kind; give a file whose name ends with {', '.join(_PARSERS)}."]
        )
    try:
        text = read_text(path)
    except FileUnreadable as error:
        raise SettingsInvalid([f"{path} {error}."]) from None
    try:
        return parse(text)
    # Not `from error`: the parsers quote the text.
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise SettingsInvalid(
            [f"{path} is no {_KINDS[parse]}{_place(error)}; correct it."]
        ) from None


def _place(error: Exception) -> str:
    """Where the parser stopped, as far as it says."""
    if isinstance(error, json.JSONDecodeError):
        return f": line {error.lineno}, column {error.colno}"
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f": line {mark.line + 1}, column {mark.column + 1}"
    found = re.search(r"line \d+, column \d+|end of document", str(error))
    return f": {found[0]}" if found else ""


def _descend(where: str, root: Any, names: list[str]) -> _Levels:
    """The mappings from the top to the section, both included."""
    levels = [(where, _mapping(where, root))]
    for name in names:
        path, around = levels[-1]
        inner = f"{path}{name}:"
        levels.append((inner, _mapping(inner, _section(path, around, name))))
    return levels


def _section(path: str, around: Mapping[Any, Any], name: str) -> Any:
    for key, value in around.items():
        if str(key).casefold() == name.casefold():
            return value
    there = [str(key) for key, value in around.items() if isinstance(value, Mapping)]
    known = f"there are {', '.join(there)}" if there else "there are none"
    place = f"{path.rstrip(': ')} has" if path else "There is"
    raise SettingsInvalid(
        [f"{place} no section {name!r}; {known}, and section='' is the top of the file."]
    )


def _mapping(path: str, value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    where = path.rstrip(": ")
    raise SettingsInvalid([f"{where} holds no names with values; give a section that does."])


def _options(path: str, section: Mapping[Any, Any]) -> tuple[Written, ...]:
    written: list[Written] = []
    for key, value in section.items():
        if isinstance(value, Mapping) and spelling(str(key)) == spelling(_NESTED):
            written += _written(f"{path}{key}:", value)
        else:
            written.append(Written(str(key), value, f"{path}{key}"))
    return tuple(written)


def _written(path: str, section: Mapping[Any, Any]) -> list[Written]:
    return [Written(str(key), value, f"{path}{key}") for key, value in section.items()]


def _inherited(around: _Levels, options: tuple[Written, ...]) -> tuple[Written, ...]:
    """App id and secret from the nearest section around that has them."""
    found = list(options)
    for path, section in reversed(around):
        for names in _IDENTITY:
            if not _named(found, names):
                found += _named(_written(path, section), names)
    return tuple(found[len(options) :])


def _named(written: list[Written], names: tuple[str, ...]) -> list[Written]:
    spelt = {spelling(name) for name in names}
    return [each for each in written if spelling(each.name) in spelt and each.value is not None]


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}
_KINDS = {tomllib.loads: "TOML", json.loads: "JSON", yaml.safe_load: "YAML"}
