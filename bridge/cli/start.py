"""What commands do first: read the settings and set up the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from flybridge.bridge.config.settings import WorkerSettings

    Loaded = TypeVar("Loaded", bound=WorkerSettings)


def begin(kind: type[Loaded], common: dict[str, Any], flags: dict[str, Any]) -> Loaded:
    """Read the settings, then set up the logs as they say.

    Args:
        common: the options of `flybridge` itself.
        flags: the options of the command; None for those not given.

    Raises:
        SettingsInvalid: naming every problem.
    """
    from flybridge.bridge.config.advice import warn
    from flybridge.bridge.config.environment import unknown_variables
    from flybridge.bridge.config.settings import BridgeSettings
    from flybridge.bridge.telemetry import logs
    from flybridge.handlers.loggers import get_logger

    settings = kind.load(**common, **flags)
    logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets)
    log = get_logger(__name__)
    known = BridgeSettings.model_fields  # a worker's are among them
    for name, near in unknown_variables(known, env_file=common["env_file"]).items():
        log.warning("setting.unknown", variable=name, did_you_mean=near or None)
    warn(settings.unwise)
    return settings
