"""Lua scripts: loads them by name, and runs many calls of them in one pipeline.

Every script may be repeated with the same arguments, so that a pipeline whose reply was lost is
sent again without harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import NoScriptError, ResponseError

from flybridge.bridge.store.redis_rights import is_denied

ROOT = Path(__file__).parents[2]
"""Of the package `flybridge`. Each script stands beside the module that calls it."""


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
    """The script `<name>.lua`, with the functions of `checked.lua` where it calls them."""
    text = _read(name)
    if "checked(" in text:
        flags, _, rest = text.partition("\n")
        text = f"{flags}\n{_read('checked')}{rest}"
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    (place,) = ROOT.glob(f"*/*/{name}.lua")
    return place.read_text(encoding="utf-8")


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


async def run_one(redis: AsyncRedis, call: Call) -> Any:
    """Run one call and return its answer.

    Raises:
        redis.RedisError: as Redis said.
    """
    script, count, told = call.script, len(call.keys), (*call.keys, *call.args)
    try:
        return await redis.evalsha(script.sha, count, *told)
    except NoScriptError:
        return await redis.eval(script.text, count, *told)


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """The fields of an entry, which a script answers flat: a name, its value, the next name."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def is_spoilt(answer: Any) -> bool:
    """Whether an answer is an error about the content of a key, not about Redis itself.

    Only the former concerns one key; everything else (no memory, loading, read-only, no such
    group, ...) would meet any other call as well.
    """
    if type(answer) is not ResponseError:
        return False
    text = str(answer)
    if "WRONGTYPE" in text:
        return True
    # Redis puts a code in capitals before every error but the plain ones.
    coded = text.partition(" ")[0].isupper()
    of_a_script = "user_script" in text and "Script killed" not in text
    return of_a_script and not coded and not is_denied(answer)


def _pipeline(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    pipeline: Any
    with redis.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(
                "EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args
            )
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers
