"""Finds the log events in the source: names, levels, fields, and what each tells the operator."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import flybridge

ROOT = Path(flybridge.__file__).parent
PACKAGES = ("bridge", "workers", "handlers")
OF_OTHERS = ("bridge/local/", "handlers/builtin/", "handlers/samples/", "semconv.py", "spans.py")
"""What only developers run, examples, and names that belong to events or spans."""

LEVELS = ("debug", "info", "warning", "error", "critical", "exception")
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
ADVICE = ("cure", "hint")
"""Fields that say what a line means, or what to do."""


@dataclass
class LogEvent:
    """What the source says of one event, wherever it is logged."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    advice: list[str] = field(default_factory=list)
    """Without what is known only when it is logged, which is `…`."""

    def add(self, call: ast.Call, constants: Mapping[str, ast.expr]) -> None:
        """Take in one place where it is logged."""
        level = getattr(call.func, "attr", "")
        self.levels.add("error" if level == "exception" else level)
        for keyword in call.keywords:
            if keyword.arg in ADVICE:
                told = _text(keyword.value, constants)
                if told and told not in self.advice:
                    self.advice.append(told)
            elif keyword.arg and keyword.arg != "exc_info":
                self.fields.add(keyword.arg)


def log_events() -> dict[str, LogEvent]:
    """All events by name."""
    found: dict[str, LogEvent] = {}
    trees = list(_trees())
    for tree in trees:
        constants = dict(_constants(tree))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            for name in _events_of(call):
                found.setdefault(name, LogEvent()).add(call, constants)
    _add_those_named_elsewhere(found, trees)
    return dict(sorted(found.items()))


def _trees() -> Iterator[ast.Module]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if not any(each in place for each in OF_OTHERS):
                yield ast.parse(path.read_text(encoding="utf-8"))


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _events_of(call: ast.Call) -> list[str]:
    """The events that a call may log."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS and call.args):
        return []
    first = call.args[0]
    if isinstance(first, ast.JoinedStr):
        name = _text(first, {})
        return [name] if name.endswith(".…") else []
    chosen = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    return [name for name in (_text(each, {}) for each in chosen) if EVENT.fullmatch(name)]


def _text(node: ast.expr, constants: Mapping[str, ast.expr]) -> str:
    """What an expression says; empty where that is not in the source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and node.id in constants:
        return _text(constants[node.id], {})
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each, {}) or "…" for each in node.values)
    return ""


def _add_those_named_elsewhere(found: dict[str, LogEvent], trees: list[ast.Module]) -> None:
    """Names that a function is given, or chooses, before it logs them."""
    families = {name.partition(".")[0] for name in found}
    for node in (node for tree in trees for node in ast.walk(tree)):
        name = str(node.value) if isinstance(node, ast.Constant) else ""
        if EVENT.fullmatch(name) and name.partition(".")[0] in families:
            found.setdefault(name, LogEvent())
