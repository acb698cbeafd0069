"""The commands, variables and make targets that pages tell of exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import click
import pytest

from flybridge.bridge.cli.main import cli
from flybridge.bridge.config.environment import PREFIX, unknown_variables
from flybridge.bridge.config.settings import BridgeSettings
from tests.docs.pages import PAGES, ROOT, blocks, text

LINES = sorted(
    {
        line.removeprefix("$ ")
        for page in PAGES
        for block in blocks(page, "console")
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("$ ")
    }
)
"""What a reader would type."""


def words(line: str) -> list[str]:
    """A command without its comment and the variables set before it."""
    found = shlex.split(line, comments=True)
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        del found[0]
    return found


COMMANDS = [" ".join(words(line)[1:]) for line in LINES if words(line)[0] == "flybridge"]
TARGETS = {target for line in LINES if words(line)[0] == "make" for target in words(line)[1:]}


def parse(command: click.Command, name: str, arguments: Sequence[str]) -> None:
    """Read the arguments as the command does, without running it.

    Raises:
        click.UsageError: there is no such command or option.
    """
    ctx = command.make_context(name, list(arguments))
    if isinstance(command, click.Group):
        found, inner, rest = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert inner is not None
        parse(inner, found or "", rest)


@pytest.mark.parametrize("told", COMMANDS)
def test_a_command_has_the_options_that_it_is_given(told: str) -> None:
    parse(cli, "flybridge", shlex.split(told))


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 30


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert {each for each in TARGETS if "=" not in each} - known == set()


def _variables() -> Iterator[str]:
    for page in PAGES:
        yield from re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*[A-Z]\b", text(page))


def test_variables_are_settings_or_their_other_names() -> None:
    told = dict.fromkeys(_variables(), "")
    assert len(told) > 20
    assert unknown_variables(BridgeSettings.model_fields, environ=told) == {}
