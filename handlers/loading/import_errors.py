"""Describes why a module with handlers failed to import: the place, the cause and the cure."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from flybridge.handlers.calling.tracebacks import raised_in, users_line
from flybridge.handlers.errors import RegistrationInvalid

OURS = "flybridge"
"""The import package of Flybridge."""

MAX_CAUSE = 1024
"""Characters of an error's text that are kept."""

_OLD_NAMES = ("bridge", "workers", "handlers")
"""Packages that stood by themselves before they came below `flybridge`."""

_CODE_LINE = re.compile(r"[\w.]+:\d+: ")
"""The start of most messages of `RegistrationInvalid`."""


def place(module: str, error: BaseException) -> str:
    """`file:line` of the user's code that failed; the module's file if no line is known; empty if
    there is no such module."""
    return "" if _not_found(module, error) else users_line(error) or _file(module)


def reason(module: str, error: BaseException) -> str:
    """The cause and the cure in one sentence.

    Args:
        module: name of the module that was to be imported.
        error: what its import raised.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing(module, error)
    if isinstance(error, RegistrationInvalid):
        return _CODE_LINE.sub("", str(error), count=1)
    return f"{_cause(error)}; {_cure(error)}"


def not_ours(module: str) -> str:
    """The sentence for a module below `flybridge` that Flybridge does not have."""
    ours = Path(sys.modules[OURS].__file__ or "").parent
    for place in _places(OURS):
        # A checkout in a folder `flybridge` holds ours, and shadows nothing.
        if not (place.is_relative_to(ours.resolve()) or ours.resolve().is_relative_to(place)):
            return f"{OURS!r} is Flybridge's own package, {ours}, not yours, {place}; rename yours"
    return f"Flybridge ({ours}) has no handlers in {module!r}; give your own module"


def _places(package: str) -> Iterator[Path]:
    """Where the entries of `sys.path` have a package, or a module, of this name."""
    for entry in sys.path:
        spec = PathFinder.find_spec(package, [entry or "."])
        if spec is not None:
            places = [spec.origin] if spec.origin else spec.submodule_search_locations or ()
            yield from (Path(place).resolve() for place in places)


def _not_found(module: str, error: BaseException) -> bool:
    """Whether the module itself, or a package in its name, does not exist."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return False
    return error.name == module or module.startswith(f"{error.name}.")


def _missing(module: str, error: ModuleNotFoundError) -> str:
    missing = error.name or ""
    package, _, inside = missing.partition(".")
    name = module if _not_found(module, error) else missing
    if package in _OLD_NAMES and (package not in sys.modules or _exists(f"{OURS}.{name}")):
        return (
            f"there is no {missing!r}; Flybridge's modules are below {OURS!r}: write {OURS}.{name}"
        )
    if _not_found(module, error):
        if package == OURS:
            return not_ours(module)
        return (
            f"no module {missing!r} on the path; run from the folder that holds it, "
            "install it, or correct the name"
        )
    if inside and package in sys.modules:
        return f"it needs {missing!r}, and {package!r} has no such module; correct the name"
    return f"it needs {missing!r}, which is not installed; install it beside Flybridge"


def _cause(error: BaseException) -> str:
    if isinstance(error, SyntaxError):  # its text would name the file again
        return f"{type(error).__name__}: {error.msg}"
    said = "".join(traceback.format_exception_only(type(error), error))
    return said.strip()[:MAX_CAUSE]


def _cure(error: BaseException) -> str:
    if isinstance(error, KeyError) and raised_in(error, "os"):
        return "set this environment variable for the workers, or give a default"
    if isinstance(error, SystemExit):
        return "a module that is imported must not end the program; raise an exception instead"
    if isinstance(error, ImportError | AttributeError) and "partially initialized" in str(error):
        return "two modules import each other; move what both need into a third"
    return "correct it and try again"


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def _file(module: str) -> str:
    """The file of a module that failed without a line of its own."""
    try:
        spec = find_spec(module)
    except (ImportError, AttributeError, ValueError):  # its package failed, too
        return ""
    return (spec and spec.origin) or ""
