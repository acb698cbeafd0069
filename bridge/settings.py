"""What bridge and worker are told: by flag, else environment, else `.env`, else default.

Not the place of ``OTEL_*``: OpenTelemetry reads those itself. Each field's description is the
second half of the sentence an operator gets when the value is missing or wrong.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bridge.election import contradictions
from bridge.errors import SettingsInvalid
from bridge.heartbeat import LONGEST
from bridge.streams import BRIDGE_GROUP
from bridge.topology import parse, takes_options

PREFIX = "FLYBRIDGE_"
DOMAINS = {"feishu": "https://open.feishu.cn", "lark": "https://open.larksuite.com"}

_NAME = r"^[A-Za-z0-9_-]{1,64}$"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
NO_BROKER = "memory://"
"""The broker URL of a worker without control commands."""

LONGEST_RETENTION = 315_360_000.0
"""Seconds. Redis refuses a time to live that is far longer, after the event is in its stream."""

_SECONDS = "give seconds greater than 0; fractions are fine"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False, description=_SECONDS)]


class _ProblemError(ValueError):
    """A whole sentence for the operator; other errors are put together from the description."""


class WorkerSettings(BaseSettings):
    """What a worker needs; a bridge needs it too."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    app_id: str = Field(
        pattern=_NAME,
        description="give the App ID that the Feishu developer console shows under Credentials, "
        "like cli_a1b2c3d4e5f6",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="give a URL like redis://127.0.0.1:6379/0, rediss://… for TLS, "
        "unix:///run/redis.sock, redis+sentinel://host:26379,host:26379/service/0 "
        "or redis+cluster://host:6379,host:6379",
    )
    broker_url: str = Field(
        "",
        repr=False,
        description="give the URL of a Redis for Celery's control commands, like "
        f"redis://127.0.0.1:6379/0 or redis+sentinel://…, but not of a Cluster; {NO_BROKER} to do "
        f"without them; or leave it out, and they share the Redis of {PREFIX}REDIS_URL",
    )
    handlers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="give importable modules, separated by commas, like myapp.feishu,myapp.audit",
    )
    group: str = Field(
        "workers",
        pattern=_NAME,
        description="give 1 to 64 letters, digits, - or _; each group gets every event",
    )
    event_lease: float = Field(
        30.0,
        ge=1,
        allow_inf_nan=False,
        description="give seconds, 1 at least: so long without renewal, and another worker takes "
        "the event over",
    )
    retention: float = Field(
        86_400.0,
        ge=1,
        le=LONGEST_RETENTION,
        allow_inf_nan=False,
        description=f"give seconds, 1 to {LONGEST_RETENTION:.0f} (ten years): an event stays in "
        "its stream, for replays, until every group has acknowledged it and it is this old",
    )
    eviction: Literal["refuse", "accept"] = Field(
        "refuse",
        description="give refuse, or accept for a managed Redis whose maxmemory-policy cannot be "
        "set and which you know will never evict",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="give debug, info, warning or error"
    )
    log_format: Literal["console", "json"] = Field(
        default_factory=lambda: "console" if sys.stderr.isatty() else "json",
        description="give console or json",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no log line."""
        urls = {self.redis_url, self.broker_url} - {"", NO_BROKER}
        return tuple(secret for url in urls for secret in parse(url).secrets)

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        if not takes_options(parse(value)):
            raise _ProblemError(
                f"{PREFIX}REDIS_URL has an option behind its ? that connections to Redis cannot "
                "take; leave it out, or correct it."
            )
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker_url(cls, value: str) -> str:
        _require(value in {"", NO_BROKER} or parse(value).kind != "cluster")
        return value

    @field_validator("handlers", mode="before")
    @classmethod
    def _handlers(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        modules = tuple(name.strip() for name in names if name.strip())
        _require(all(map(_MODULE.fullmatch, modules)))
        return modules

    @field_validator("group")
    @classmethod
    def _group(cls, value: str) -> str:
        if value == BRIDGE_GROUP:
            raise _ProblemError(
                f"{PREFIX}GROUP is {value!r}, under which the bridge keeps its own dead letters; "
                "give the workers another name."
            )
        return value

    @field_validator("log_level", "log_format", "eviction", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @classmethod
    def load(cls, *, env_file: Path | None = None, **flags: Any) -> Self:
        """Read every source once; a flag of None counts as not given.

        Args:
            env_file: read instead of `.env` in the working directory; it has to exist.

        Raises:
            SettingsInvalid: naming every problem at once, by variable.
        """
        if env_file is not None and not env_file.exists():
            raise SettingsInvalid([f"--env-file {env_file} is not a file; give the path of one."])
        given = {name: value for name, value in flags.items() if value is not None}
        sources: dict[str, Any] = {"_env_file": env_file or Path(".env"), **given}
        try:
            return cls(**sources)
        except ValidationError as error:
            sentences = "\n".join(cls._problem(found) for found in error.errors())
            raise SettingsInvalid(sentences.splitlines()) from None

    @classmethod
    def _problem(cls, found: ErrorDetails) -> str:
        """One sentence of an operator's words out of one of pydantic's."""
        name = str(found["loc"][0])
        field = cls.model_fields[name]
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, _ProblemError):
            return str(cause)
        variable = PREFIX + name.upper()
        if found["type"] == "missing":
            return f"{variable} is not set; {field.description}."
        shown = f"is {found['input']!r}" if field.repr else "cannot be used"
        return f"{variable} {shown}; {field.description}."


class BridgeSettings(WorkerSettings):
    """What a bridge needs."""

    app_secret_file: Path | None = Field(None, description="give the path of a readable file")
    app_secret: SecretStr = Field(
        SecretStr(""),
        description="give the App Secret that the Feishu developer console shows beside the "
        f"App ID, or the path of a file that holds it in {PREFIX}APP_SECRET_FILE",
    )
    domain: str = Field(
        "feishu",
        description="give feishu, lark, or a base URL like https://open.feishu.cn; plain http "
        "only for an address of this machine, like http://127.0.0.1:8719",
    )
    lease_duration: Seconds = 15.0
    renew_deadline: Seconds = 10.0
    retry_period: Seconds = 2.0
    durability: str = Field(
        "none",
        pattern=r"^(none|aof|replica:[1-9][0-9]?)$",
        description="give none, aof (the ack waits until Redis has the event on disk), or "
        "replica:N (until N replicas have it)",
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
    text_dialect: bool = Field(
        False,
        description="give true to speak JSON text with a gateway that is not Feishu, else false",
    )
    text_token: SecretStr = Field(
        SecretStr(""),
        description="give the token that the gateway wants, or nothing and none is sent",
    )
    text_event_url: str = Field(
        "", description="give the event URL that goes with the gateway's token"
    )
    ops_port: int = Field(
        0, ge=0, le=65535, description="give a free port for health and status, or 0 for none"
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
        file: Path | None = info.data.get("app_secret_file")
        if given and file:
            raise _ProblemError(
                f"{PREFIX}APP_SECRET and {PREFIX}APP_SECRET_FILE are both set; keep one of them."
            )
        secret = _read_secret(file) if file else given
        if not secret:
            hint = cls.model_fields["app_secret"].description
            raise _ProblemError(f"{PREFIX}APP_SECRET is not set; {hint}.")
        return secret

    @field_validator("text_event_url")
    @classmethod
    def _text(cls, value: str, info: ValidationInfo) -> str:
        token = info.data.get("text_token")
        if info.data.get("text_dialect") is False and (
            value or (token and token.get_secret_value())
        ):
            raise _ProblemError(
                f"{PREFIX}TEXT_DIALECT is off, so {PREFIX}TEXT_TOKEN and {PREFIX}TEXT_EVENT_URL go "
                "nowhere; set it to true, or leave the other two out."
            )
        return value

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        if value.lower() in DOMAINS:
            return value.lower()
        url = urlsplit(value)
        _require(url.scheme in {"http", "https"} and url.hostname and url.port != 0)
        _require(not (url.username or url.password or url.query or url.fragment))
        if url.scheme == "http" and not is_loopback(url):
            raise _ProblemError(
                f"{PREFIX}DOMAIN is {value!r}, and plain http would send the app secret readably "
                "over the network; give an https URL (http is for 127.0.0.1, ::1 and localhost)."
            )
        return value.rstrip("/")

    @field_validator("retry_period")
    @classmethod
    def _durations(cls, value: float, info: ValidationInfo) -> float:
        """The three belong together; a wrong one of the others has been reported already."""
        lease, renew = info.data.get("lease_duration"), info.data.get("renew_deadline")
        if lease and renew and (problems := contradictions(lease, renew, value)):
            raise _ProblemError("\n".join(problems))
        return value


def is_loopback(url: SplitResult) -> bool:
    """Whether the host is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = url.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unknown_variables(
    environ: Mapping[str, str] = os.environ, env_file: Path | None = None
) -> dict[str, str]:
    """Variables with our prefix that nothing reads, and the known name nearest to each ('': none).

    A mistyped variable is an operator's classic; but it is no error, since a newer version or a
    neighbour may read it.
    """
    known = [field.upper() for field in BridgeSettings.model_fields]
    given = {*environ, *dotenv_values(env_file or ".env")}
    ours = sorted(name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX))
    near = {name: difflib.get_close_matches(name, known, 1) for name in ours if name not in known}
    return {PREFIX + name: PREFIX + found[0] if found else "" for name, found in near.items()}


def _read_secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise _ProblemError(
            f"{PREFIX}APP_SECRET_FILE {file} cannot be read: {reason}; give a readable file."
        ) from None


def _require(condition: object) -> None:
    """Refuse a value whose field description says all there is to say."""
    if not condition:
        raise ValueError
