"""The environment variables that are settings: their names, and those that are mistyped.

Not what they mean, which is for `bridge/seed_options.py` and `bridge/settings.py` to tell.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from bridge.env_file import parse
from bridge.errors import SettingsInvalid
from bridge.layers import Written
from bridge.seed_options import OPTIONS, meaning, nearest
from bridge.text_files import FileUnreadable, read_text

PREFIX = "FLYBRIDGE_"


def variable(setting: str) -> str:
    """The variable of a setting: `FLYBRIDGE_APP_ID` of `app_id`."""
    return PREFIX + setting.upper()


def layers(env_file: Path | None = None) -> tuple[tuple[Written, ...], ...]:
    """What `.env` says, and what the environment says, which lies above it.

    Raises:
        SettingsInvalid: what is wrong with the file.
    """
    return _written(_values_of(env_file)), _written(os.environ)


def unknown_variables(
    settings: Collection[str],
    environ: Mapping[str, str] = os.environ,
    env_file: Path | None = None,
) -> dict[str, str]:
    """Variables with our prefix that nothing reads, and the known name nearest to each ('': none).

    A mistyped variable is an operator's classic; but it is no error, since a newer version or a
    neighbour may read it.
    """
    known = {*settings, *(option.setting for option in OPTIONS)}
    given = {*environ, *_values_of(env_file)}
    ours = sorted(name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX))
    unknown = (name for name in ours if not meaning(name, known)[0])
    near = {name: nearest(name.lower(), known) for name in unknown}
    return {PREFIX + name: variable(found) if found else "" for name, found in near.items()}


def _values_of(env_file: Path | None) -> Mapping[str, str]:
    file = env_file or Path(".env")
    # A folder of this name is some tool's, as a virtual environment is.
    if env_file is None and (not os.path.lexists(file) or os.path.isdir(file)):
        return {}
    try:
        found = parse(read_text(file), str(file), os.environ, PREFIX)
    except FileUnreadable as error:
        raise SettingsInvalid([f"{file} {error}."]) from None
    if found.problems:
        raise SettingsInvalid(list(found.problems))
    return found.values


def _written(values: Mapping[str, str]) -> tuple[Written, ...]:
    """An empty variable counts as not set."""
    return tuple(
        Written(name[len(PREFIX) :], value, name)
        for name, value in values.items()
        if name.upper().startswith(PREFIX) and value
    )
