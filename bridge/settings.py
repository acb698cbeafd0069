"""What bridge and worker are told: by flag, else file or code, else environment, else `.env`.

Below all of these are the defaults. The options of the C# service that this one follows may stand
everywhere in place of ours, see `bridge/seed_options.py`. Not the place of ``OTEL_*``:
OpenTelemetry reads those itself. Each field's description is the second half of the sentence an
operator gets when the value is missing or wrong; those not given here belong to the field's type,
see `bridge/setting_types.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bridge import environment
from bridge.app_secret import read_secret
from bridge.election import contradictions
from bridge.environment import PREFIX, variable
from bridge.errors import SettingsInvalid
from bridge.heartbeat import LONGEST
from bridge.layers import Given, Written, overlay
from bridge.seed_options import translate
from bridge.setting_problems import Problem, sentences
from bridge.setting_types import (
    DOMAINS,
    NO_BROKER,
    BrokerUrl,
    Count,
    Delay,
    Domain,
    Eviction,
    Group,
    LogFormat,
    LogLevel,
    Modules,
    Name,
    RedisUrl,
    Retention,
    Seconds,
    StartFrom,
    Switch,
    Unhandled,
)
from bridge.text_files import FileUnreadable
from bridge.topology import parse
from bridge.unwise import Unwise, unwise

__all__ = ["NO_BROKER", "PREFIX", "BridgeSettings", "WorkerSettings"]


LARGEST_BUFFER = 1_073_741_824
"""Bytes; the kernel takes no more than a 32-bit number, and halves it."""


class WorkerSettings(BaseModel):
    """What a worker needs; a bridge needs it too."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    app_id: Name = Field(
        description="give the App ID that the Feishu developer console shows under Credentials, "
        "like cli_a1b2c3d4e5f6",
    )
    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    broker_url: BrokerUrl = ""
    handlers: Modules = ()
    group: Group = "workers"
    start_from: StartFrom = "auto"
    event_lease: float = Field(
        30.0,
        ge=1,
        allow_inf_nan=False,
        description="give seconds, 1 at least: so long without renewal, and another worker takes "
        "the event over",
    )
    parallel_handlers: Switch = Field(
        True,
        description="give true to run the handlers of an event side by side, false for one after "
        "the other",
    )
    unhandled: Unhandled = "dead"
    unhandled_after: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="give seconds, 0 to 86400: so long the events of a type wait for a worker with "
        "a handler",
    )
    unhandled_limit: Count = Field(
        1_000,
        ge=1,
        description="give how many dead letters of a type without a handler are kept, 1 at least",
    )
    retention: Retention = 86_400.0
    eviction: Eviction = "refuse"
    log_level: LogLevel = "info"
    log_format: LogFormat = Field(
        default_factory=lambda: "console" if sys.stderr.isatty() else "json"
    )

    _unwise: tuple[Unwise, ...] = PrivateAttr(())

    @classmethod
    def load(
        cls,
        *,
        env_file: Path | None = None,
        configured: Iterable[Sequence[Written]] = (),
        **flags: Any,
    ) -> Self:
        """Read every source once; a value of None counts as not given.

        Args:
            env_file: read instead of `.env` in the working directory; it has to exist.
            configured: what files and code say, later ones above earlier ones, and all of them
                above the environment.
            flags: above everything.

        Raises:
            SettingsInvalid: naming every problem at once, under the name that was written.
        """
        if env_file is not None and not env_file.exists():
            raise SettingsInvalid([f"--env-file {env_file} is not a file; give the path of one."])
        fields = cls.model_fields
        told = [
            Written(name, value, variable(name) if name in fields else name)
            for name, value in flags.items()
        ]
        named = [translate(each, fields) for each in (*configured, told)]
        around = [translate(each, fields) for each in environment.layers(env_file)]
        layers = [*around, *named]
        problems = [sentence for layer in layers for sentence in layer.problems]
        problems += [sentence for layer in named for sentence in layer.unknown]
        return cls._of(overlay(layers), problems)

    @classmethod
    def _of(cls, given: Mapping[str, Given], problems: list[str]) -> Self:
        try:
            settings = cls(**{setting: each.value for setting, each in given.items()})
        except ValidationError as error:
            told = sentences(error, cls.model_fields, given)
            raise SettingsInvalid([*problems, *told]) from None
        if problems:
            raise SettingsInvalid(problems)
        settings._unwise = unwise(given)
        return settings

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no log line."""
        urls = {self.redis_url, self.broker_url} - {"", NO_BROKER}
        return tuple(secret for url in urls for secret in parse(url).secrets)

    @property
    def unwise(self) -> tuple[Unwise, ...]:
        """What was asked for and serves nobody well; to be warned of once."""
        return self._unwise


class BridgeSettings(WorkerSettings):
    """What a bridge needs."""

    app_secret_file: Path | None = Field(None, description="give the path of a readable file")
    app_secret: SecretStr = Field(
        SecretStr(""),
        description="give the App Secret that the Feishu developer console shows beside the "
        f"App ID, or the path of a file that holds it in {PREFIX}APP_SECRET_FILE",
    )
    domain: Domain = "feishu"
    lease_duration: Seconds = 15.0
    renew_deadline: Seconds = 10.0
    retry_period: Seconds = 2.0
    durability: str = Field(
        "none",
        pattern=r"^(none|aof|replica:[1-9][0-9]?)$",
        description="give none, aof (the ack waits until Redis has the event on disk), or "
        "replica:N (until N replicas have it)",
    )
    dead_letters: Count = Field(
        10_000,
        ge=1,
        description="give how many events that cannot be read the bridge keeps as dead letters, 1 "
        "or more; what comes on top is answered 500",
    )
    memory_threshold: float = Field(
        0.85,
        gt=0,
        le=1,
        description="give a share of Redis' maxmemory, above 0 and up to 1: above it Feishu keeps "
        "the events until workers have drained some",
    )
    ping_interval: float = Field(
        LONGEST,
        ge=1,
        le=LONGEST,
        description=f"give seconds, 1 to {LONGEST:g}: Feishu is pinged at least so often; where "
        "its own interval is shorter, that holds",
    )
    pong_alarm: Seconds = 120.0
    auto_reconnect: Switch = Field(
        True, description="give true to connect anew when a connection ends, false to end with it"
    )
    max_reconnect_attempts: Count = Field(
        0,
        description="give the attempts in a row after which the bridge gives up, or 0 for no end",
    )
    reconnect_delay: Delay = 1.0
    connection_timeout: Seconds = 10.0
    receive_buffer_size: Count = Field(
        0,
        le=LARGEST_BUFFER,
        description="give bytes, or 0 for what the system thinks best",
    )
    message_queue: Switch = Field(
        True, description="give true to let events wait for Redis, false to refuse them at once"
    )
    message_queue_capacity: Count = Field(
        0,
        description="give how many events may wait for Redis, or 0 for as many as 32 MiB hold",
    )
    text_dialect: Switch = Field(
        False,
        description="give true to speak JSON text with a gateway that is not Feishu, else false",
    )
    text_token: SecretStr = Field(
        SecretStr(""),
        description="give the token that the gateway wants, or nothing and none is sent",
    )
    text_event_url: str = Field(
        "", repr=False, description="give the event URL that goes with the gateway's token"
    )
    ops_port: int = Field(
        0, ge=0, le=65535, description="give a free port for health and metrics, or 0 for none"
    )
    ops_host: str = Field(
        "127.0.0.1", min_length=1, description="give the address to listen on, like 127.0.0.1"
    )

    @property
    def base_url(self) -> str:
        """Of Feishu's open platform, without a slash at the end."""
        return DOMAINS.get(self.domain, self.domain)

    @property
    def secrets(self) -> tuple[str, ...]:
        given = (self.app_secret, self.text_token)
        return (*super().secrets, *(secret.get_secret_value() for secret in given))

    @field_validator("app_secret", mode="before")
    @classmethod
    def _app_secret(cls, value: Any, info: ValidationInfo) -> Any:
        given = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(given, str):
            raise Problem(f"{PREFIX}APP_SECRET is not text; put it in quotes.")
        file: Path | None = info.data.get("app_secret_file")
        if given and file:
            raise Problem(
                f"{PREFIX}APP_SECRET and {PREFIX}APP_SECRET_FILE are both set; keep one of them."
            )
        secret = _read_secret(file) if file else given
        if not secret:
            hint = cls.model_fields["app_secret"].description
            raise Problem(f"{PREFIX}APP_SECRET is not set; {hint}.")
        return secret

    @field_validator("text_event_url")
    @classmethod
    def _text(cls, value: str, info: ValidationInfo) -> str:
        token = info.data.get("text_token")
        if info.data.get("text_dialect") is False and (
            value or (token and token.get_secret_value())
        ):
            raise Problem(
                f"{PREFIX}TEXT_DIALECT is off, so {PREFIX}TEXT_TOKEN and {PREFIX}TEXT_EVENT_URL go "
                "nowhere; set it to true, or leave the other two out."
            )
        return value

    @field_validator("retry_period")
    @classmethod
    def _durations(cls, value: float, info: ValidationInfo) -> float:
        """The three belong together; a wrong one of the others has been reported already."""
        lease, renew = info.data.get("lease_duration"), info.data.get("renew_deadline")
        if lease and renew and (problems := contradictions(lease, renew, value)):
            raise Problem("\n".join(problems))
        return value


def _read_secret(file: Path) -> str:
    try:
        return read_secret(file)
    except FileUnreadable as error:
        raise Problem(f"{PREFIX}APP_SECRET_FILE {file} {error}.") from None
