"""Reads what the settings' models say of each setting: the one source of its documentation.

`python docs/_ext/setting_texts.py` writes `.env.example` anew; a test says when that is due.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flybridge.bridge.config.environment import variable
from flybridge.bridge.config.settings import BridgeSettings, WorkerSettings

HEAD = """\
# Copy to .env. Flags and variables of the environment come before what stands here.
# UTF-8. ${NAME} is replaced by another variable, which has to be set; in single quotes a value
# stands as it is written: 'p$1#x'. The last of several lines with one name counts.
"""

FOOT = """
# Instead of ours, these work too: FLYBRIDGE_HEARTBEAT_INTERVAL_MS, FLYBRIDGE_RECONNECT_DELAY_MS,
# FLYBRIDGE_CONNECTION_TIMEOUT_MS, FLYBRIDGE_ENABLE_LOGGING, FLYBRIDGE_ENABLE_MESSAGE_QUEUE,
# FLYBRIDGE_PARALLEL_MULTI_HANDLERS

# Traces leave the process only when OTEL_* variables say so:
# OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318
"""

WIDTH = 98

FIRST = ("app_id", "app_secret", "app_secret_file", "domain", "redis_url", "handlers")
"""What nearly everybody sets."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as its readers meet it."""

    variable: str
    default: str
    """As it would be written into `.env`; empty where there is none."""
    meaning: str
    """The docstring of the field: a short paragraph, perhaps more of them."""
    accepts: str
    """What values it takes, which is also the advice in the sentence for a wrong one."""
    for_workers: bool
    """Workers and commands read it, too; else bridges only."""

    @property
    def summary(self) -> str:
        """The first paragraph of the meaning."""
        return self.meaning.partition("\n\n")[0].replace("\n", " ")

    @property
    def details(self) -> str:
        """What follows the summary."""
        return self.meaning.partition("\n\n")[2]


def settings() -> list[Setting]:
    """All settings: those of an app first, then in the order of the models."""
    meanings = dict(_docstrings(WorkerSettings)) | dict(_docstrings(BridgeSettings))
    return [
        Setting(
            variable(name),
            _written(field.default),
            meanings[name],
            (field.description or "").removeprefix("give "),
            name in WorkerSettings.model_fields,
        )
        for name, field in sorted(
            BridgeSettings.model_fields.items(), key=lambda each: _rank(each[0])
        )
    ]


def env_example() -> str:
    """The text of `.env.example`."""
    return HEAD + "".join(map(_example, settings())) + FOOT


def _example(setting: Setting) -> str:
    comment = setting.summary.replace("`", "")
    lines = textwrap.wrap(comment, WIDTH, break_on_hyphens=False)
    return (
        "\n" + "".join(f"# {line}\n" for line in lines) + f"{setting.variable}={setting.default}\n"
    )


def _rank(name: str) -> int:
    """A stable sort by it leaves all else in its order."""
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _docstrings(model: type) -> Iterator[tuple[str, str]]:
    """The string that follows each field, as Sphinx and editors read it."""
    source = ast.parse(textwrap.dedent(inspect.getsource(model)))
    (body,) = [each.body for each in source.body if isinstance(each, ast.ClassDef)]
    for field, below in pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield field.target.id, inspect.cleandoc(str(below.value.value))


def _written(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    if isinstance(default, float):
        return f"{default:g}"
    # What is computed, or has to be given, has no default to write.
    return str(default) if isinstance(default, str | int) else ""


if __name__ == "__main__":
    target = Path(__file__).parent.parent.parent / ".env.example"
    target.write_text(env_example(), encoding="utf-8")
