"""Finds users' handlers: modules by name, and installed packages by entry point.

Importing is all it does; the modules register themselves with `@handles`.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points as installed_entry_points

import structlog

from handlers.errors import PluginBroken, RegistrationInvalid
from handlers.registry import Registration, registry

log = structlog.get_logger("handlers.plugins")

OURS = frozenset({"bridge", "workers", "handlers"})
"""The import packages of Flybridge."""

GROUP = "flybridge.handlers"
"""Entry points of this group are loaded; each names a module."""


def load(modules: Iterable[str], *, entry_points: bool = True) -> None:
    """Import modules with handlers, then those that installed packages offer.

    Args:
        modules: dotted names, importable from `sys.path`.
        entry_points: whether to look at the group `flybridge.handlers`, too.

    Raises:
        PluginBroken: one of them failed to import.
    """
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise PluginBroken(module, "not a module's name; write it with dots, e.g. myapp.feishu")
        if module.endswith(".py"):
            raise PluginBroken(module, f"a file's name; give the module: {module[:-3]}")
        if module in OURS:
            raise PluginBroken(module, _taken(module))
        _load(module, partial(importlib.import_module, module))
    for entry_point in installed_entry_points(group=GROUP) if entry_points else ():
        _load(_module_of(entry_point), entry_point.load)


def load_late(module: str) -> tuple[Registration, ...]:
    """Import a module with handlers while events flow, or give back what was unregistered of it.

    Code that is imported already is not read again: what has changed there wants a new process.

    Args:
        module: dotted name, importable from `sys.path`.

    Returns:
        The handlers that have come, the default included; none if they were all there.

    Raises:
        PluginBroken: it failed to import; nothing has changed.
    """
    before = _names()
    # The folder may have been read before the file was there.
    importlib.invalidate_caches()
    with registry.loading(module):
        load((module,), entry_points=False)
        registry.restore(module)
    return tuple(each for name, each in _names().items() if name not in before)


def _names() -> dict[str, Registration]:
    return {each.name: each for each in (*registry.list(), registry.default)}


def _load(module: str, load_module: Callable[[], object]) -> None:
    is_new = module not in sys.modules
    before = (registry.list(), registry.default)
    try:
        with registry.loading(module):
            load_module()
    # A module may fail with anything, sys.exit() included; the worker stops with its name.
    except (Exception, SystemExit) as error:
        raise PluginBroken(module, _cause(module, error)) from error
    if is_new and (registry.list(), registry.default) == before:
        log.warning("plugin.registered_nothing", module=module, cure="decorate with @handles(…)")


def _module_of(entry_point: EntryPoint) -> str:
    return entry_point.value.partition(":")[0]


def _cause(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and _is_part(error.name, module):
        package = module.partition(".")[0]
        if package in OURS:
            return _taken(package)
        return (
            f"no module {error.name!r} on the path; run from the folder that holds it, "
            "install it, or correct the name"
        )
    if isinstance(error, RegistrationInvalid):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"it needs {error.name!r}, which is not installed; install it beside Flybridge"
    return f"{type(error).__name__}: {error}{_place(error)}; correct it and try again"


def _taken(package: str) -> str:
    return f"{package!r} is a name of Flybridge's, whose package is found first; rename yours"


def _is_part(name: str, module: str) -> bool:
    return name == module or module.startswith(f"{name}.")


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):  # names file and line itself
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    return f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
