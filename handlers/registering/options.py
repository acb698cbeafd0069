"""Completes and checks the options of a registration."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, TypedDict

from flybridge.handlers.base import Handler
from flybridge.handlers.batch import MAX_SIZE, MAX_WAIT, Batch
from flybridge.handlers.errors import MAX_RETRY_WAIT, RegistrationInvalid
from flybridge.handlers.registering.paths import location

_NAME = re.compile(r"\S{1,200}")
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RATE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?:/(?P<unit>[smh]))?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, None: 1}


class Options(TypedDict, total=False):
    """Keyword arguments of `@handles(…)` and `register(…)`; `Handler` says what they mean."""

    name: str
    """Unique and the same in every process; default `module:QualName`."""
    queue: str | None
    max_attempts: int
    timeout: float
    backoff: float
    backoff_max: float
    max_age: float | None
    rate_limit: str | float | None
    concurrency: int | None
    batch: Batch | None
    ordered_by: str | None
    dedup_by: str | None


def per_second(rate_limit: str | float) -> float:
    """Events per second that a rate limit allows; 0 if it is not a valid one."""
    if isinstance(rate_limit, str):
        match = _RATE.fullmatch(rate_limit)
        return float(match["number"]) / _SECONDS[match["unit"]] if match else 0.0
    return float(rate_limit) if _is_seconds(rate_limit) else 0.0


def complete(given: Options, owner: type[Handler], where: str) -> dict[str, Any]:
    """Take options that are not given from the class attributes of `owner`, and check them all.

    Raises:
        RegistrationInvalid: an option is unknown or has an impossible value.
    """
    for option in given:
        if option not in Options.__annotations__:
            raise RegistrationInvalid(f"{where}: unknown option {option!r}; {_advice(option)}")
    _refuse_slips(owner, where)
    name = given.get("name", "-")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise RegistrationInvalid(
            f"{where}: name={name!r}; give 1 to 200 characters without spaces, or no name"
        )
    names = [option for option in Options.__annotations__ if option != "name"]
    options = {option: given.get(option, getattr(owner, option)) for option in names}
    for option, problem in _problems(options):
        raise RegistrationInvalid(f"{where}: {option}={options[option]!r}; {problem}")
    return options


def _refuse_slips(owner: type[Handler], where: str) -> None:
    """Refuse a misspelt class attribute, which would be ignored silently."""
    for attribute, value in vars(owner).items():
        if attribute in Options.__annotations__ or not isinstance(value, int | float | str):
            continue
        near = difflib.get_close_matches(attribute, Options.__annotations__, n=1, cutoff=0.85)
        if near:
            raise RegistrationInvalid(
                f"{where}: {owner.__name__}.{attribute} is not an option; did you mean {near[0]!r}?"
            )


def _problems(options: dict[str, Any]) -> list[tuple[str, str]]:
    queue = options["queue"]
    problems = []
    if queue is not None and not (isinstance(queue, str) and _QUEUE.fullmatch(queue)):
        problems.append(("queue", "give None or a name of letters, digits, `_`, `.` and `-`"))
    if not _is_count(options["max_attempts"]):
        problems.append(("max_attempts", "give a whole number, 1 or more"))
    if not _is_seconds(options["timeout"]) or options["timeout"] <= 0:
        problems.append(("timeout", "give seconds, more than 0"))
    return [
        *problems,
        *_problems_of_waits(options),
        *_problems_of_limits(options),
        *_problems_of_keys(options),
        *_problems_of_batch(options["batch"]),
    ]


def _problems_of_waits(options: dict[str, Any]) -> list[tuple[str, str]]:
    problems = [
        (option, f"give seconds, from 0 to {MAX_RETRY_WAIT:.0f}, a week")
        for option in ("backoff", "backoff_max")
        if not _is_seconds(options[option]) or options[option] > MAX_RETRY_WAIT
    ]
    if not problems and options["backoff"] > options["backoff_max"]:
        longest = f"backoff_max={options['backoff_max']:g}"
        problems.append(("backoff", f"it exceeds {longest}; raise backoff_max, or lower backoff"))
    return problems


def _problems_of_limits(options: dict[str, Any]) -> list[tuple[str, str]]:
    age, rate, concurrency = options["max_age"], options["rate_limit"], options["concurrency"]
    problems = []
    if age is not None and not (_is_seconds(age) and age > 0):
        problems.append(("max_age", "give None or seconds, more than 0"))
    if rate is not None and not per_second(rate):
        problems.append(("rate_limit", 'give None, "10/s", "100/m", "5/h" or a number per second'))
    if concurrency is not None and not _is_count(concurrency):
        problems.append(("concurrency", "give None or a whole number, 1 or more"))
    return problems


def _problems_of_keys(options: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            option,
            "give None or a path such as 'body.message.chat_id'; 'envelope.…' starts at the top",
        )
        for option in ("ordered_by", "dedup_by")
        if options[option] is not None
        and not (isinstance(options[option], str) and location(options[option]))
    ]


def _problems_of_batch(batch: object) -> list[tuple[str, str]]:
    if batch is None:
        return []
    if not isinstance(batch, Batch):
        return [("batch", "give None or Batch(size=100, wait=0.05), from flybridge")]
    problems = []
    if not _is_count(batch.size) or not 2 <= batch.size <= MAX_SIZE:
        problems.append(("batch", f"give a size from 2 to {MAX_SIZE}"))
    if not _is_seconds(batch.wait) or batch.wait > MAX_WAIT:
        problems.append(("batch", f"give a wait in seconds, from 0 to {MAX_WAIT:g}"))
    return problems


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _advice(option: str) -> str:
    known = list(Options.__annotations__)
    near = difflib.get_close_matches(option, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
