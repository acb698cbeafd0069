"""Reads the command line of `celery -A flybridge.workers.app …` while that command imports the app.

Celery takes each option from a variable, too (`APP`, `BROKER_URL`, `CELERY_WORKER_POOL`, …). Such a
variable may be meant for another Celery program, so it does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

ASKING = frozenset({"control", "events", "flower", "graph", "inspect", "status"})
"""Sub-commands that ask the workers, and run no task themselves."""


def given(option: str) -> Any:
    """The value that an option was given on the command line; None: it was not, or there is none.

    Args:
        option: of `celery` itself, like `broker`, or of the sub-command that runs.
    """
    context = click.get_current_context(silent=True) if is_celery() else None
    while context is not None:
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            return context.params[option]
        context = context.parent
    return None


def asks_only() -> bool:
    """Whether the sub-command does without tasks, and so without handlers."""
    context = _celery()
    return context is not None and context.invoked_subcommand in ASKING


def is_celery() -> bool:
    """Whether `celery` itself imports the app."""
    return _celery() is not None


def shut_out_variables() -> None:
    """Have the sub-command take no option from a variable; its own are read after the app."""
    context = _celery()
    if context is not None:
        context.auto_envvar_prefix = None


def before_detaching(check: Callable[[], object]) -> click.Option:
    """A hidden option for `celery worker`: has `check` run before `--detach` leaves the terminal.

    After that nobody sees the exit code and the last words of a worker that is refused.
    """

    def run(context: click.Context, *_: object) -> None:
        if context.params["detach"]:
            check()

    # Celery's own options come before it, so their values are there.
    return click.Option(
        ["--check-before-detach"], is_flag=True, hidden=True, expose_value=False, callback=run
    )


def _celery() -> click.Context | None:
    context = click.get_current_context(silent=True)
    root = context.find_root() if context is not None else None
    return root if root is not None and root.command.name == "celery" else None
