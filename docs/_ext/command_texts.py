"""Describes the commands of `flybridge` in Markdown, from what click knows of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import groupby

import click

VERBATIM = "\b"
"""What a paragraph of a help text begins with that click does not wrap."""


def commands(root: click.Group, prog: str) -> list[click.Context]:
    """A context for the program, and for each of its commands, groups before what is in them."""
    return list(_within(click.Context(root, info_name=prog)))


def description(ctx: click.Context) -> Iterator[str]:
    """Lines of Markdown: what the command is for, its usage and its options."""
    command = ctx.command
    yield from _paragraphs(command.help or "")
    yield from ("```text", ctx.get_usage().removeprefix("Usage: "), "```", "")
    records = [parameter.get_help_record(ctx) for parameter in command.get_params(ctx)]
    options = [each for each in records if each is not None and "--help" not in each[0]]
    if options:
        yield from ("| option | |", "|---|---|")
        yield from (f"| `{_cell(names)}` | {_cell(text)} |" for names, text in options)
        yield ""
    yield from _paragraphs(command.epilog or "")


def _within(ctx: click.Context) -> Iterator[click.Context]:
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            if command is not None:
                yield from _within(click.Context(command, info_name=name, parent=ctx))


def _paragraphs(text: str) -> Iterator[str]:
    told = inspect.cleandoc(text).split("\n\n") if text else []
    for is_verbatim, found in groupby(told, key=lambda each: each.lstrip().startswith(VERBATIM)):
        paragraphs = [each.replace(VERBATIM, "").strip("\n") for each in found]
        if is_verbatim:
            yield from ("```text", "\n\n".join(paragraphs), "```", "")
        else:
            yield from ("\n\n".join(paragraphs), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
