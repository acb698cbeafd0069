"""`flybridge handlers`: shows and changes the handlers of the running workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from flybridge.bridge.cli.operator import of_group, who
from flybridge.bridge.cli.start import begin
from flybridge.bridge.errors import BridgeError

if TYPE_CHECKING:
    from flybridge.workers.celery_integration.fleet import Answers, Fleet

EXAMPLES = """\b
examples:
  # what runs, and in how many of the workers
  $ flybridge handlers list
\b
  # a module that the workers were not started with, from now on
  $ flybridge handlers register myapp.surveys
\b
  # one of its handlers off, and on again
  $ flybridge handlers unregister myapp.surveys:Answer
  $ flybridge handlers register myapp.surveys
\b
A worker that starts later knows FLYBRIDGE_HANDLERS only: name the module there, too.
"""


waiting = click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for answers.",
)
"""The option of commands that every worker answers."""


class WorkersDiffer(BridgeError):
    """Not all workers did what they were told."""


@click.group(epilog=EXAMPLES)
def handlers() -> None:
    """See and change the handlers of all running workers.

    No worker needs a restart.
    """


@handlers.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Every option, by worker.")
@of_group
@click.pass_obj
def list_handlers(common: dict[str, Any], /, as_json: bool, **flags: Any) -> None:
    """List the handlers, in the order of their registration.

    The default handler comes last.
    """
    answers = _fleet(common, flags).handlers()
    if as_json:
        click.echo(json.dumps(answers, indent=2, ensure_ascii=False))
        return
    click.echo(f"{'HANDLER':40} {'WORKERS':>7}  {'QUEUE':10} TYPES")
    for shown, count in _counted(answers):
        types = "(default)" if shown.get("default") else " ".join(shown["patterns"])
        share = f"{count}/{len(answers)}"
        click.echo(f"{shown['name']:40} {share:>7}  {shown['queue'] or '-':10} {types}")


@handlers.command()
@click.argument("module")
@waiting
@of_group
@click.pass_obj
def register(common: dict[str, Any], /, module: str, timeout: float, **flags: Any) -> None:
    """Import MODULE in every worker, unregistered handlers included."""
    from flybridge.workers.celery_integration.control import REGISTER

    _change(_fleet(common, flags), REGISTER, timeout, module=module)


@handlers.command()
@click.argument("name")
@waiting
@of_group
@click.pass_obj
def unregister(common: dict[str, Any], /, name: str, timeout: float, **flags: Any) -> None:
    """Stop running the handler NAME in every worker.

    Calls that have begun go on to their end.
    """
    from flybridge.workers.celery_integration.control import UNREGISTER

    _change(_fleet(common, flags), UNREGISTER, timeout, name=name)


def _fleet(common: dict[str, Any], flags: dict[str, Any]) -> Fleet:
    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.workers.celery_integration.fleet import Fleet

    return Fleet(begin(WorkerSettings, common, flags))


def _change(fleet: Fleet, command: str, timeout: float, **arguments: str) -> None:
    answers, missing = fleet.change(command, timeout, who=who(), **arguments)
    for worker, answer in sorted(answers.items()):
        click.echo(f"{worker}: {_sentence(command, answer)}")
    if missing:
        click.echo(f"no answer from {missing} more within {timeout:g} s")
    refusals, asked = sum("error" in answer for answer in answers.values()), len(answers) + missing
    if refusals or missing:
        raise WorkersDiffer(
            f"{refusals} of {asked} workers refused, {missing} did not answer; see what each has "
            "with: flybridge handlers list"
        )


def _sentence(command: str, answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"refused: {answer['error']}"
    names = ", ".join(answer["ok"]["handlers"])
    if not names:
        return "nothing to do, all its handlers are registered"
    return f"{'registered' if command.startswith('register') else 'unregistered'} {names}"


def _counted(answers: Answers) -> list[tuple[dict[str, Any], int]]:
    """Each handler that some worker has, as the first worker has it, and how many workers do."""
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    counts: dict[tuple[str, bool], int] = {}
    for _, answer in sorted(answers.items()):
        for shown in answer["handlers"]:
            key = (shown["name"], bool(shown.get("default")))
            found.setdefault(key, shown)
            counts[key] = counts.get(key, 0) + 1
    order = sorted(found, key=lambda key: key[1])
    return [(found[key], counts[key]) for key in order]
