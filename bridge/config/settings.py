"""What bridge and worker are told: by flag, else file or code, else environment, else `.env`.

Below all of these are the defaults. The options of the C# service that this one follows may stand
everywhere in place of ours, see `bridge/config/dotnet_names.py`. Not the place of ``OTEL_*``:
OpenTelemetry reads those itself. Each field's description is the second half of the sentence an
operator gets when the value is missing or wrong; those not given here belong to the field's type,
see `bridge/config/types.py`.
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

from flybridge.bridge.config import environment
from flybridge.bridge.config.advice import Advice, unwise
from flybridge.bridge.config.app_secret import read_secret
from flybridge.bridge.config.bounds import LONGEST_HEARTBEAT
from flybridge.bridge.config.dotnet_names import translate
from flybridge.bridge.config.environment import PREFIX, variable
from flybridge.bridge.config.layers import Given, Written, overlay
from flybridge.bridge.config.lease_timing import contradictions
from flybridge.bridge.config.problems import Problem, sentences
from flybridge.bridge.config.text_files import FileUnreadable
from flybridge.bridge.config.types import (
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
from flybridge.bridge.errors import SettingsInvalid
from flybridge.bridge.store.topology import parse

__all__ = ["BridgeSettings", "WorkerSettings"]


LARGEST_BUFFER = 1_073_741_824
"""Bytes; the kernel takes no more than a 32-bit number, and halves it."""


class WorkerSettings(BaseModel):
    """The settings of a worker; a bridge has them too."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    app_id: Name = Field(
        description="give the App ID that the Feishu developer console shows under Credentials, "
        "like cli_a1b2c3d4e5f6",
    )
    """The App ID of the Feishu app. Bridge, workers and commands of one app need the same one."""
    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    """The Redis that holds the streams. Version 7.0 or later (Valkey 7.2), with `maxmemory-policy
    noeviction`.

    Options may follow a `?`; they hold for all connections, Celery's too: `db`, `username`,
    `password`, `client_name`, `socket_timeout` (2 to 60 seconds), `socket_connect_timeout`,
    `socket_keepalive`, `socket_read_size`, `health_check_interval`, with TLS redis-py's `ssl_*`,
    with Sentinels `sentinel_username` and `sentinel_password`. Any other option is refused.
    """
    broker_url: BrokerUrl = ""
    """Another Redis for Celery's control commands and for Celery tasks of your own. Empty: the
    Redis of the streams.

    `memory://` does without both. A Redis Cluster cannot be a broker, so with a Cluster this
    setting is needed.
    """
    handlers: Modules = ()
    """Modules with handlers, separated by commas, like `myapp.feishu,myapp.audit`.

    A worker needs them, unless an installed package brings handlers by the entry-point group
    `flybridge.handlers`.
    """
    group: Group = "workers"
    """The consumer group. Its workers share the events; each group gets every event once."""
    start_from: StartFrom = "auto"
    """Where a group begins that does not exist yet. `auto`: with the events that no other group
    reads, else now.

    `now`, `all`, a duration before now like `2h`, or a time like `2026-07-29T10:00:00Z`. A group
    that exists goes on where it was.
    """
    event_lease: float = Field(
        30.0,
        ge=1,
        allow_inf_nan=False,
        description="give seconds, 1 at least: so long without renewal, and another worker takes "
        "the event over",
    )
    """Seconds without renewal after which another worker takes an event over."""
    parallel_handlers: Switch = Field(
        True,
        description="give true to run the handlers of an event side by side, false for one after "
        "the other",
    )
    """Whether several handlers of one event run side by side (`true`) or one after the other."""
    unhandled: Unhandled = "dead"
    """What becomes of events that no worker of the group has a handler for: `dead` letters, or
    `done` (logged once per type, then gone)."""
    unhandled_after: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="give seconds, 0 to 86400: so long the events of a type wait for a worker with "
        "a handler",
    )
    """Seconds without a worker that has a handler for a type, after which its events become dead
    letters.

    Later events of the type follow at once. Where a worker had a handler for the type before,
    the wait is 60 times as long, and a minute at least.
    """
    unhandled_limit: Count = Field(
        1_000,
        ge=1,
        description="give how many dead letters of a type without a handler are kept, 1 at least",
    )
    """How many such dead letters are kept of each type. The oldest are dropped first."""
    retention: Retention = 86_400.0
    """Seconds that a stream keeps an event which every group has acknowledged, for `flybridge
    replay`.

    Workers keep the record of what is done for an hour longer, and for 24 hours at least.
    """
    eviction: Eviction = "refuse"
    """`accept` starts although Redis' `maxmemory-policy` is not `noeviction`, for a managed Redis
    where it cannot be set."""
    log_level: LogLevel = "info"
    """The lowest level that is logged; `off` logs nothing."""
    log_format: LogFormat = Field(
        default_factory=lambda: "console" if sys.stderr.isatty() else "json"
    )
    """`console` or `json`. Empty: `console` on a terminal, else `json`."""

    _unwise: tuple[Advice, ...] = PrivateAttr(())

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
            configured: from files and code, later ones above earlier ones, all above the
                environment.
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
        """Texts that must not be shown."""
        urls = {self.redis_url, self.broker_url} - {"", NO_BROKER}
        return tuple(secret for url in urls for secret in parse(url).secrets)

    @property
    def unwise(self) -> tuple[Advice, ...]:
        """Settings to warn of once."""
        return self._unwise


class BridgeSettings(WorkerSettings):
    """The settings of a bridge."""

    app_secret_file: Path | None = Field(None, description="give the path of a readable file")
    """A file that holds the App Secret, instead of the secret itself. For bridges; do not give it
    to workers.

    The file is read again whenever the bridge asks Feishu where to connect. A pipe will do.
    """
    app_secret: SecretStr = Field(
        SecretStr(""),
        description="give the App Secret that the Feishu developer console shows beside the "
        f"App ID, or the path of a file that holds it in {PREFIX}APP_SECRET_FILE",
    )
    """The App Secret of the Feishu app. For bridges; do not give it to workers, where handlers
    could read it."""
    domain: Domain = "feishu"
    """Feishu's open platform: `feishu`, `lark` or a base URL. Plain http is accepted for this
    machine only."""
    lease_duration: Seconds = 15.0
    """Seconds after which a lease that is not renewed ends and a standby may lead."""
    renew_deadline: Seconds = 10.0
    """Seconds without renewal after which the leader closes its connection and stands by."""
    retry_period: Seconds = 2.0
    """Seconds between two attempts to take or renew the lease. lease duration > renew deadline >
    1.2 × retry period."""
    durability: str = Field(
        "none",
        pattern=r"^(none|aof|replica:[1-9][0-9]?)$",
        description="give none, aof (the ack waits until Redis has the event on disk), or "
        "replica:N (until N replicas have it)",
    )
    """What an ack to Feishu waits for: `none` (Redis holds the event), `aof` (Redis has it on disk)
    or `replica:N` (N replicas hold it)."""
    dead_letters: Count = Field(
        10_000,
        ge=1,
        description="give how many events that cannot be read the bridge keeps as dead letters, 1 "
        "or more; what comes on top is answered 500",
    )
    """How many events that cannot be read the bridge keeps as dead letters. Further ones are
    answered 500, so that Feishu keeps them."""
    memory_threshold: float = Field(
        0.85,
        gt=0,
        le=1,
        description="give a share of Redis' maxmemory, above 0 and up to 1: above it Feishu keeps "
        "the events until workers have drained some",
    )
    """Share of Redis' `maxmemory` above which events are answered 500, so that Feishu keeps them
    until workers have drained some."""
    ping_interval: float = Field(
        LONGEST_HEARTBEAT,
        ge=1,
        le=LONGEST_HEARTBEAT,
        description=f"give seconds, 1 to {LONGEST_HEARTBEAT:g}: Feishu is pinged at least so "
        "often; where its own interval is shorter, that holds",
    )
    """The longest time between two pings, in seconds. It gets shorter by itself when answers are
    late or missing."""
    pong_alarm: Seconds = 120.0
    """Seconds without an answer to pings before `heartbeat.silent` is logged."""
    auto_reconnect: Switch = Field(
        True, description="give true to connect anew when a connection ends, false to end with it"
    )
    """Whether the bridge connects anew when its connection ends; else it exits with code 5.

    Feishu closes every connection now and then, so `false` is unwise.
    """
    max_reconnect_attempts: Count = Field(
        0,
        description="give the attempts in a row after which the bridge gives up, or 0 for no end",
    )
    """Failed attempts in a row after which the bridge exits with code 5; 0: it never gives up.

    A connection that ends within 10 s counts as a failed attempt.
    """
    reconnect_delay: Delay = 1.0
    """Upper bound of the first delay before reconnecting, in seconds. It doubles with each failure,
    up to what Feishu asks for."""
    connection_timeout: Seconds = 10.0
    """Seconds that discovery, and the WebSocket upgrade, may take each."""
    receive_buffer_size: Count = Field(
        0,
        le=LARGEST_BUFFER,
        description="give bytes, or 0 for what the system thinks best",
    )
    """Bytes that the kernel buffers for the socket; 0: as the system likes. Below 262144 the
    system's size stays."""
    message_queue: Switch = Field(
        True, description="give true to let events wait for Redis, false to refuse them at once"
    )
    """Whether events may wait in the bridge for Redis; else what Redis does not take at once is
    answered 500."""
    message_queue_capacity: Count = Field(
        0,
        description="give how many events may wait for Redis, or 0 for as many as 32 MiB hold",
    )
    """How many events may wait for Redis; 0: as many as 32 MiB hold. Further ones are answered 500,
    so that Feishu keeps them."""
    text_dialect: Switch = Field(
        False,
        description="give true to speak JSON text with a gateway that is not Feishu, else false",
    )
    """Whether to speak JSON text with a gateway that is not Feishu.

    The dialect has no acks, so what Redis refuses is lost.
    """
    text_token: SecretStr = Field(
        SecretStr(""),
        description="give the token that the gateway wants, or nothing and none is sent",
    )
    """The token that the gateway wants, if it wants one."""
    text_event_url: str = Field(
        "", repr=False, description="give the event URL that goes with the gateway's token"
    )
    """The event URL that goes with the gateway's token."""
    ops_port: int = Field(
        0, ge=0, le=65535, description="give a free port for health and metrics, or 0 for none"
    )
    """Port for `/livez`, `/readyz`, `/leaderz`, `/status` and `/metrics` of a bridge; 0: none.

    It takes 32 connections at most, each for 10 s at most; when more come the oldest is closed
    (`web.crowded`).
    """
    ops_host: str = Field(
        "127.0.0.1", min_length=1, description="give the address to listen on, like 127.0.0.1"
    )
    """Address that the ops port listens on."""

    @property
    def base_url(self) -> str:
        """Feishu's open platform, without a slash at the end."""
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
        """Check the three together. A wrong one of the others is reported by itself."""
        lease, renew = info.data.get("lease_duration"), info.data.get("renew_deadline")
        if lease and renew and (problems := contradictions(lease, renew, value)):
            raise Problem("\n".join(problems))
        return value


def _read_secret(file: Path) -> str:
    try:
        return read_secret(file)
    except FileUnreadable as error:
        raise Problem(f"{PREFIX}APP_SECRET_FILE {file} {error}.") from None
