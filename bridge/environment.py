"""The environment variables that are settings: their names, and those that are mistyped.

Not what they mean, which is for `bridge/seed_options.py` and `bridge/settings.py` to tell.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from dotenv import dotenv_values

from bridge.layers import Written
from bridge.seed_options import OPTIONS, meaning, nearest

PREFIX = "FLYBRIDGE_"


def variable(setting: str) -> str:
    """The variable of a setting: `FLYBRIDGE_APP_ID` of `app_id`."""
    return PREFIX + setting.upper()


def layers(env_file: Path | None = None) -> tuple[tuple[Written, ...], ...]:
    """What `.env` says, and what the environment says, which lies above it."""
    return _written(dotenv_values(env_file or ".env")), _written(os.environ)


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
    given = {*environ, *dotenv_values(env_file or ".env")}
    ours = sorted(name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX))
    unknown = (name for name in ours if not meaning(name, known)[0])
    near = {name: nearest(name.lower(), known) for name in unknown}
    return {PREFIX + name: variable(found) if found else "" for name, found in near.items()}


def _written(values: Mapping[str, str | None]) -> tuple[Written, ...]:
    """An empty variable counts as not set."""
    return tuple(
        Written(name[len(PREFIX) :], value, name)
        for name, value in values.items()
        if name.upper().startswith(PREFIX) and value
    )
