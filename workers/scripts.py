"""Lua scripts, run in bulk: one pipeline for many calls. Knows nothing of what they mean.

Every script here may be repeated with the same arguments, so a pipeline whose reply was lost
is sent again without harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from workers.spoilt import is_spoilt


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script and its digest."""

    text: str
    sha: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]


@cache
def load(name: str) -> Script:
    """The script `workers/lua/<name>.lua`."""
    text = _read(name)
    if "checked(" in text:
        flags, _, rest = text.partition("\n")
        text = f"{flags}\n{_read('checked')}{rest}"
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return files("workers").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def run_all(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Run all calls in one pipeline and return their answers in order.

    A call on a spoilt key answers with its `ResponseError` (see `is_spoilt`), so that it stops one
    event and not the worker.

    Raises:
        redis.RedisError: Redis could not be asked, or refused (loading, read-only, ...).
    """
    answers = _pipeline(redis, calls)
    missing = {
        call.script
        for call, answer in zip(calls, answers, strict=True)
        if isinstance(answer, NoScriptError)
    }
    if missing:
        for script in missing:
            redis.script_load(script.text)
        answers = _pipeline(redis, calls)
    for answer in answers:
        if isinstance(answer, Exception) and not is_spoilt(answer):
            raise answer
    return answers


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """The fields of an entry, which a script answers flat: a name, its value, the next name."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _pipeline(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    pipeline: Any
    with redis.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(
                "EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args
            )
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers
