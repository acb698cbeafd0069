"""Reads the settings that environment variables and a `.env` file give, and finds mistyped ones.

A `.env` file has `NAME=value` lines, comments, quotes and `export`. A value in single quotes stands
as it is written. Elsewhere `${NAME}` and `${NAME:-default}` are replaced by a variable of the file,
above it, or of the environment; one that is not set is a mistake, since what is left would be
another secret or URL than the one that was meant. Of several lines with one name the last counts.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from flybridge.bridge.config.dotnet_names import OPTIONS, meaning, nearest
from flybridge.bridge.config.layers import Written
from flybridge.bridge.config.text_files import FileUnreadable, read_text
from flybridge.bridge.errors import SettingsInvalid

PREFIX = "FLYBRIDGE_"

_VARIABLE = re.compile(r"\$\{(?P<name>[^}:]*)(?P<else>:-(?P<default>[^}]*))?\}")
_SINGLE_QUOTED = re.compile(r"[^=]*=\s*'")


def variable(setting: str) -> str:
    """The variable of a setting: `FLYBRIDGE_APP_ID` for `app_id`."""
    return PREFIX + setting.upper()


def layers(env_file: Path | None = None) -> tuple[tuple[Written, ...], ...]:
    """The settings of `.env`, and those of the environment, which win.

    Raises:
        SettingsInvalid: what is wrong with the file.
    """
    return _written(_values_of(env_file)), _written(os.environ)


def unknown_variables(
    settings: Collection[str],
    environ: Mapping[str, str] = os.environ,
    env_file: Path | None = None,
) -> dict[str, str]:
    """Variables with our prefix that nothing reads, each with the nearest known name ('': none).

    They are no error: a newer version or a neighbour may read them.
    """
    known = {*settings, *(option.setting for option in OPTIONS)}
    given = {*environ, *_values_of(env_file)}
    ours = sorted(name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX))
    unknown = (name for name in ours if not meaning(name, known)[0])
    near = {name: nearest(name.lower(), known) for name in unknown}
    return {PREFIX + name: variable(found) if found else "" for name, found in near.items()}


def _values_of(env_file: Path | None) -> Mapping[str, str]:
    file = env_file or Path(".env")
    # A folder of this name may be a virtual environment.
    if env_file is None and (not os.path.lexists(file) or os.path.isdir(file)):
        return {}
    try:
        found = parse(read_text(file), str(file), os.environ)
    except FileUnreadable as error:
        raise SettingsInvalid([f"{file} {error}."]) from None
    if found.problems:
        raise SettingsInvalid(list(found.problems))
    return found.values


def _written(values: Mapping[str, str]) -> tuple[Written, ...]:
    """The variables with our prefix. An empty one counts as not set."""
    return tuple(
        Written(name[len(PREFIX) :], value, name)
        for name, value in values.items()
        if name.upper().startswith(PREFIX) and value
    )


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What a `.env` file says."""

    values: Mapping[str, str]
    problems: tuple[str, ...]
    """A sentence for each line of ours that cannot be used; without its value."""


def parse(text: str, where: str, environ: Mapping[str, str]) -> EnvFile:
    """Read the text of a `.env` file.

    Args:
        where: what sentences call the file.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for line in parse_stream(io.StringIO(text)):
        number = line.original.line + _blank_lines(line)
        if line.error and PREFIX in line.original.string.upper():
            problems.append(
                f"{where}, line {number}, cannot be read; write NAME=value, and a value with "
                "spaces, quotes or # in single quotes: NAME='value'."
            )
        if line.key is None or line.value is None:
            continue
        value, missing = _resolved(line, {**environ, **values})
        values[line.key] = value
        if missing and line.key.upper().startswith(PREFIX):
            problems.append(
                f"{where}, line {number}, uses {', '.join(missing)} in {line.key}, and that is not "
                "set; set it, or put the value in single quotes if it is meant as written."
            )
    return EnvFile(values, tuple(problems))


def _blank_lines(line: Binding) -> int:
    """Blank lines before it, which the parser counts to the line that follows them."""
    text = line.original.string
    return text[: len(text) - len(text.lstrip())].count("\n")


def _resolved(line: Binding, known: Mapping[str, str]) -> tuple[str, list[str]]:
    """The value, and the variables in it that are not set."""
    value, missing = line.value or "", []
    if _SINGLE_QUOTED.match(line.original.string):
        return value, []

    def fill(found: re.Match[str]) -> str:
        if found["name"] in known:
            return known[found["name"]]
        if not found["else"]:
            missing.append(found[0])
        return found["default"] or ""

    return _VARIABLE.sub(fill, value), missing
