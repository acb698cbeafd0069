"""Imports users' handlers: modules by name, and installed packages by entry point.

The modules register their handlers themselves, with `@handles`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points as installed_entry_points

from flybridge.handlers.errors import PluginBroken
from flybridge.handlers.loading.import_errors import OURS, not_ours, place, reason
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registry import Registration, registry

log = get_logger(__name__)

GROUP = "flybridge.handlers"
"""Entry points of this group are loaded; each names a module."""


def load(modules: Iterable[str], *, entry_points: bool = True) -> None:
    """Import modules with handlers, then the modules that installed packages offer.

    Args:
        modules: dotted names, importable from `sys.path`.
        entry_points: whether to import the modules of the group `flybridge.handlers`, too.

    Raises:
        PluginBroken: one of them failed to import.
    """
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise PluginBroken(
                module, "not the name of a module; write it with dots, e.g. myapp.feishu"
            )
        if module.endswith(".py"):
            raise PluginBroken(
                module, f"the name of a file; give that of the module: {module[:-3]}"
            )
        if module == OURS:
            raise PluginBroken(module, not_ours(module))
        _load(module, partial(importlib.import_module, module))
    for entry_point in installed_entry_points(group=GROUP) if entry_points else ():
        _load(_module_of(entry_point), entry_point.load)


def load_late(module: str) -> tuple[Registration, ...]:
    """Import a module with handlers while events flow, or restore what was unregistered of it.

    Code that is imported already is not read again: changed code needs a new process.

    Args:
        module: dotted name, importable from `sys.path`.

    Returns:
        The handlers that are new, the default included; empty if all were registered already.

    Raises:
        PluginBroken: it failed to import; the registry is as before.
    """
    before = _names()
    # Python may have listed the folder before the file was written.
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
            _refuse_twin(module)
    except PluginBroken:
        raise
    # A module may fail with anything, sys.exit() included.
    except (Exception, SystemExit) as error:
        raise PluginBroken(module, reason(module, error), place(module, error)) from None
    if is_new and (registry.list(), registry.default) == before:
        log.warning("plugin.registered_nothing", module=module, cure="decorate with @handles(…)")


def _refuse_twin(module: str) -> None:
    """Refuse a file that is imported under two names: Python would take it for two modules."""
    file = _file_of(module)
    names = {each.where.rpartition(":")[0] for each in registry.list()} - {module}
    for other in sorted(names):
        if file and _file_of(other) == file:
            raise PluginBroken(
                module,
                f"its file is imported as {other!r}, too, so that its handlers would run twice; "
                "use one of the two names everywhere",
                file,
            )


def _file_of(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    return os.path.realpath(file) if file else ""


def _module_of(entry_point: EntryPoint) -> str:
    return entry_point.value.partition(":")[0]
