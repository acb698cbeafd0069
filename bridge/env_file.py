"""Reads a `.env` file: `NAME=value` lines, comments, quotes, `export`, `${NAME}`. No I/O.

A value in single quotes stands as it is written. Elsewhere `${NAME}` and `${NAME:-default}` are
replaced by a variable of the file, above it, or of the environment; one that is not set is a
mistake, since what is left would be another secret or URL than the one that was meant. The last of
several lines with one name counts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dotenv.parser import Binding, parse_stream

_VARIABLE = re.compile(r"\$\{(?P<name>[^}:]*)(?P<else>:-(?P<default>[^}]*))?\}")
_SINGLE_QUOTED = re.compile(r"[^=]*=\s*'")


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What a file says."""

    values: Mapping[str, str]
    problems: tuple[str, ...]
    """A sentence for each line of ours that cannot be used; without its value."""


def parse(text: str, where: str, environ: Mapping[str, str], prefix: str) -> EnvFile:
    """Read the text of a file.

    Args:
        where: what sentences call the file.
        environ: the environment.
        prefix: of our variables; what is wrong with others is no concern of ours.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for line in parse_stream(io.StringIO(text)):
        number = line.original.line + _blank_lines(line)
        if line.error and prefix in line.original.string.upper():
            problems.append(
                f"{where}, line {number}, cannot be read; write NAME=value, and a value with "
                "spaces, quotes or # in single quotes: NAME='value'."
            )
        if line.key is None or line.value is None:
            continue
        value, missing = _resolved(line, {**environ, **values})
        values[line.key] = value
        if missing and line.key.upper().startswith(prefix):
            problems.append(
                f"{where}, line {number}, uses {', '.join(missing)} in {line.key}, and that is not "
                "set; set it, or put the value in single quotes if it is meant as written."
            )
    return EnvFile(values, tuple(problems))


def _blank_lines(line: Binding) -> int:
    """Those that the parser counts to the line that follows them."""
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
