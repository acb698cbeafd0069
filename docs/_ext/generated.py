"""What Sphinx takes from the code: the directives `settings`, `metrics`, `payloads`, `logs` and
`commands`, and links from the names of settings to what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from command_texts import commands, description
from docutils import nodes
from log_texts import LogEvent, log_events
from setting_texts import Setting, settings
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from flybridge.bridge.cli.main import cli
from flybridge.bridge.ops.metrics import ROWS, StatusCollector
from flybridge.handlers.payloads import MODELS

LABELS = {row.name: row.label for row in ROWS}
LINKS = (nodes.reference, addnodes.pending_xref)
VARIABLE = re.compile(r"(FLYBRIDGE_[A-Z_]+)(?:=.*)?")
LEADERS = {row.name for row in ROWS if row.leading}


class SettingsDirective(SphinxDirective):
    """The settings of workers, or those of bridges only: a table, and a paragraph for each.

    The argument is `workers` or `bridges`.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for_workers = {"workers": True, "bridges": False}[self.arguments[0]]
        chosen = [each for each in settings() if each.for_workers is for_workers]
        return self.parse_text_to_nodes("\n".join(_settings(chosen)))


class MetricsDirective(SphinxDirective):
    """A table of the metrics of a bridge."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(_metrics()))


class PayloadsDirective(SphinxDirective):
    """A table of the event types that have a payload model."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(_payloads()))


class LogsDirective(SphinxDirective):
    """A table of the log events."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(_logs()))


class CommandsDirective(SphinxDirective):
    """A section for each command of `flybridge`."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for ctx in commands(cli, "flybridge"):
            lines += [f"## {ctx.command_path}", "", *description(ctx)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _settings(chosen: Sequence[Setting]) -> Iterator[str]:
    yield from ("| variable | default | what it is |", "|---|---|---|")
    for each in chosen:
        default = f"`{each.default}`" if each.default else ""
        yield f"| {{envvar}}`{each.variable}` | {default} | {_cell(each.summary)} |"
    for each in chosen:
        yield from ("", f"```{{envvar}} {each.variable}", each.meaning, "")
        default = f"`{each.default}`" if each.default else "none"
        yield from (f"Default: {default}. Accepts: {each.accepts}.", "```")


def _metrics() -> Iterator[str]:
    yield from ("| metric | what it tells |", "|---|---|")
    for family in StatusCollector().describe():
        name = family.name + ("_total" if family.type == "counter" else "")
        label = f", by `{LABELS[name]}`" if LABELS.get(name) else ""
        of_whom = ", of the leader only" if name in LEADERS else ""
        told = f"{_cell(family.documentation)} *{family.type.capitalize()}{label}{of_whom}.*"
        yield f"| `{name}` | {told} |"


def _payloads() -> Iterator[str]:
    yield from ("| event type | what happened, and its model |", "|---|---|")
    for event_type, model in sorted(MODELS.items()):
        module = model.__module__.rpartition(".")[2]
        happened = (model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        yield f"| `{event_type}` | {_cell(happened)} `{module}.{model.__name__}` |"


def _logs() -> Iterator[str]:
    yield from ("| event | level | what it tells |", "|---|---|---|")
    for name, event in log_events().items():
        yield f"| `{name}` | {', '.join(sorted(event.levels))} | {_cell(_told(event))} |"


def _told(event: LogEvent) -> str:
    fields = ", ".join(f"`{each}`" for each in sorted(event.fields))
    advice = "; or: ".join(event.advice)
    return ". ".join(filter(None, [fields, advice[:1].upper() + advice[1:]]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


class SettingLinks(SphinxPostTransform):
    """Makes `FLYBRIDGE_…` in running text a link to the setting."""

    default_priority = 5  # before references are resolved

    def run(self, **_: object) -> None:
        known = {each.variable for each in settings()}
        for literal in list(self.document.findall(nodes.literal)):
            named = VARIABLE.fullmatch(literal.astext())
            if named and named[1] in known and not isinstance(literal.parent, LINKS):
                literal.replace_self(self._link(named[1], literal))

    def _link(self, variable: str, literal: nodes.literal) -> nodes.Node:
        target = {"refdomain": "std", "reftype": "envvar", "reftarget": variable}
        where = {"refdoc": self.env.current_document.docname, "refwarn": True}
        return addnodes.pending_xref("", literal.deepcopy(), **target, **where)


def keep_whole(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Napoleon takes what stands before a colon in an attribute's first line for its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment


def setup(app: Sphinx) -> dict[str, bool]:
    """For Sphinx."""
    app.add_directive("settings", SettingsDirective)
    app.add_directive("metrics", MetricsDirective)
    app.add_directive("payloads", PayloadsDirective)
    app.add_directive("logs", LogsDirective)
    app.add_directive("commands", CommandsDirective)
    app.add_post_transform(SettingLinks)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", keep_whole, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
