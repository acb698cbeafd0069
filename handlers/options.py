"""The options of a registration, checked. Where they come from is `source.py`'s business."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, TypedDict

from handlers.base import Handler
from handlers.errors import RegistrationInvalid

_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Options(TypedDict, total=False):
    """What may follow the patterns in `@handles(…)` and `Registry.register(…)`."""

    name: str
    """Unique and the same in every process; default `module:QualName`."""
    queue: str | None
    max_attempts: int
    timeout: float
    backoff: float
    backoff_max: float


def complete(given: Options, owner: type[Handler], where: str) -> dict[str, Any]:
    """Fill options that are not given from the class attributes of `owner`, and check all.

    Raises:
        RegistrationInvalid: an option is unknown or has an impossible value.
    """
    for option in given:
        if option not in Options.__annotations__:
            raise RegistrationInvalid(f"{where}: unknown option {option!r}; {_advice(option)}")
    _refuse_slips(owner, where)
    names = [option for option in Options.__annotations__ if option != "name"]
    options = {option: given.get(option, getattr(owner, option)) for option in names}
    for option, problem in _problems(options):
        raise RegistrationInvalid(f"{where}: {option}={options[option]!r}; {problem}")
    return options


def _refuse_slips(owner: type[Handler], where: str) -> None:
    """A misspelt class attribute would be an option that silently does nothing."""
    for attribute, value in vars(owner).items():
        if attribute in Options.__annotations__ or not isinstance(value, int | float | str):
            continue
        near = difflib.get_close_matches(attribute, Options.__annotations__, n=1, cutoff=0.85)
        if near:
            raise RegistrationInvalid(
                f"{where}: {owner.__name__}.{attribute} is no option; did you mean {near[0]!r}?"
            )


def _problems(options: dict[str, Any]) -> list[tuple[str, str]]:
    queue, attempts = options["queue"], options["max_attempts"]
    problems = []
    if queue is not None and not (isinstance(queue, str) and _QUEUE.fullmatch(queue)):
        problems.append(("queue", "give None or a name of letters, digits, `_`, `.` and `-`"))
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        problems.append(("max_attempts", "give a whole number, 1 or more"))
    if not _is_seconds(options["timeout"]) or options["timeout"] <= 0:
        problems.append(("timeout", "give seconds, more than 0"))
    problems += [
        (option, "give seconds, 0 or more")
        for option in ("backoff", "backoff_max")
        if not _is_seconds(options[option])
    ]
    return problems


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _advice(option: str) -> str:
    known = list(Options.__annotations__)
    near = difflib.get_close_matches(option, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
