"""The class of Flybridge's Celery apps, and what stands on Celery's command line.

Only Flybridge's settings and the command line configure these apps. Celery takes each option from a
variable, too (`APP`, `BROKER_URL`, `CELERY_WORKER_POOL`, …); such a variable may be meant for
another Celery program, so it does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
from celery import Celery
from celery.app.utils import Settings
from click.core import ParameterSource
from kombu.utils.objects import cached_property

from flybridge.bridge.errors import SettingsInvalid

ASKING = frozenset({"control", "events", "flower", "graph", "inspect", "status"})
"""Sub-commands that ask the workers, and run no task themselves."""


class OwnSettings(Settings):
    """Celery's settings without the four that it reads from `CELERY_BROKER_URL` and the like."""

    @property
    def broker_url(self) -> Any:
        return self.get("broker_url")

    @property
    def broker_read_url(self) -> Any:
        return self.get("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        return self.get("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        return self.get("result_backend")


class App(Celery):
    """A Celery app of Flybridge.

    Args:
        configuration: Celery's settings. `--config` and `--result-backend` of `celery` come first
            where these leave something open.

    Raises:
        SettingsInvalid: there is no such backend for results.
    """

    def __init__(self, configuration: Mapping[str, Any], **options: Any) -> None:
        module = given("config")
        super().__init__(
            "flybridge",
            # Celery would take these two from CELERY_LOADER and CELERY_CONFIG_MODULE.
            loader=given("loader") or "app",
            config_source=module or dict(configuration),
            **options,
        )
        # Celery swaps what it holds, and never the object. (An assignment would be a setting.)
        object.__setattr__(self._conf, "__class__", OwnSettings)
        backend = given("result_backend")
        chosen = {"result_backend": backend} if backend else {}
        self.conf.update({**chosen, **configuration} if module else chosen)
        if backend:
            self._check(backend)

    def _check(self, backend: str) -> None:
        try:
            self._get_backend()
        except Exception as error:
            raise SettingsInvalid(
                [
                    f"--result-backend: {backend} cannot be used ({error}); install what it needs, "
                    "or leave it out"
                ]
            ) from error

    @cached_property
    def Worker(self) -> Any:  # noqa: N802  # Celery's name
        """The class of the program that `celery worker` and `flybridge worker` run."""
        return self.subclass_with_self("flybridge.workers.celery_integration.program:Program")


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
