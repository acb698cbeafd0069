"""The class of Flybridge's Celery apps: only Flybridge's settings and the command line configure
them, not the variables of other Celery programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.app.utils import Settings
from kombu.utils.objects import cached_property

from flybridge.bridge.errors import SettingsInvalid
from flybridge.workers.celery_integration import command_line


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
        module = command_line.given("config")
        super().__init__(
            "flybridge",
            # Celery would take these two from CELERY_LOADER and CELERY_CONFIG_MODULE.
            loader=command_line.given("loader") or "app",
            config_source=module or dict(configuration),
            **options,
        )
        # Celery swaps what it holds, and never the object. (An assignment would be a setting.)
        object.__setattr__(self._conf, "__class__", OwnSettings)
        backend = command_line.given("result_backend")
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
