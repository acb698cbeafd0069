"""The types of settings: which values they take, and how values are read.

Each description is the second half of the sentence an operator gets when a value is missing or
wrong.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from redis.asyncio.connection import RedisSSLContext
from redis.exceptions import RedisError

from flybridge.bridge.config import times
from flybridge.bridge.config.bounds import LONGEST_DELAY
from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.loopback import is_loopback
from flybridge.bridge.config.problems import Problem, require
from flybridge.bridge.store.streams import BRIDGE_GROUP
from flybridge.bridge.store.topology import Topology, parse
from flybridge.bridge.store.url_options import FILES, OptionInvalid

DOMAINS = {"feishu": "https://open.feishu.cn", "lark": "https://open.larksuite.com"}
NO_BROKER = "memory://"
"""The broker URL of a worker without control commands."""
LONGEST_RETENTION = 315_360_000.0
"""Seconds. Redis refuses a far longer time to live, when the event is already in its stream."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _no_switch(value: Any) -> Any:
    """Refuse true and false, which pydantic would read as numbers."""
    require(not isinstance(value, bool))
    return value


def _level(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else _lower(value)


def _modules(value: Any) -> Any:
    names = value.split(",") if isinstance(value, str) else value
    require(isinstance(names, list | tuple) and all(isinstance(name, str) for name in names))
    modules = tuple(name.strip() for name in names if name.strip())
    require(all(map(_MODULE.fullmatch, modules)))
    return modules


def _group(value: str) -> str:
    if value == BRIDGE_GROUP:
        raise Problem(
            f"{PREFIX}GROUP is {value!r}, under which the bridge keeps its own dead letters; "
            "give the workers another name."
        )
    return value


def _start(value: str) -> str:
    if value.lower() in {"auto", "now", "all"}:
        return value.lower()
    try:
        times.parse(value, 0)
    except ValueError as error:
        raise ValueError from error
    return value


def _redis_url(value: str) -> str:
    _parsed(value, "REDIS_URL")
    return value


def _broker_url(value: str) -> str:
    require(value in {"", NO_BROKER} or _parsed(value, "BROKER_URL").kind != "cluster")
    return value


def _parsed(url: str, setting: str) -> Topology:
    try:
        topology = parse(url)
    except OptionInvalid as error:
        raise Problem(f"{PREFIX}{setting} {error}.") from None
    for name in FILES:
        file = topology.options.get(name)
        if file and not os.access(file, os.R_OK):
            raise Problem(
                f"{PREFIX}{setting} names a file in {name} that cannot be read; "
                "give the path of one that this process may read."
            )
    if topology.tls and (trouble := _tls_trouble(topology)):
        raise Problem(
            f"{PREFIX}{setting} has ssl_ options that cannot be used ({trouble}); "
            "see whether files, key, password and ciphers go together."
        )
    return topology


def _tls_trouble(topology: Topology) -> str:
    """What OpenSSL says of the options before the first connection; empty: nothing."""
    given = {name.removeprefix("ssl_"): each for name, each in topology.tls_options.items()}
    try:
        # With no password it would ask for one at the terminal.
        RedisSSLContext(**{"check_hostname": True, "password": "", **given}).get()
    except (OSError, ValueError, RedisError) as error:
        return str(error)
    return ""


def _domain(value: str) -> str:
    if value.lower() in DOMAINS:
        return value.lower()
    if set(value) & set("@?#"):  # not repeated, since it may be a secret
        raise Problem(
            f"{PREFIX}DOMAIN holds more than scheme, host and path; give a base URL like "
            "https://open.feishu.cn."
        )
    url = urlsplit(value)
    require(url.scheme in {"http", "https"} and url.hostname and url.port != 0)
    if url.scheme == "http" and not is_loopback(url):
        raise Problem(
            f"{PREFIX}DOMAIN is {value!r}, and plain http would send the app secret readably "
            "over the network; give an https URL (http is for 127.0.0.1, ::1 and localhost)."
        )
    return value.rstrip("/")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

Count = Annotated[int, BeforeValidator(_no_switch), Field(ge=0)]

Seconds = Annotated[
    float,
    BeforeValidator(_no_switch),
    Field(
        gt=0,
        allow_inf_nan=False,
        description="give seconds greater than 0; fractions are fine",
    ),
]

Switch = Annotated[bool, Field(description="give true or false")]

Delay = Annotated[
    Seconds,
    Field(le=LONGEST_DELAY, description=f"give seconds, more than 0 and up to {LONGEST_DELAY:g}"),
]

Retention = Annotated[
    float,
    Field(
        ge=1,
        le=LONGEST_RETENTION,
        allow_inf_nan=False,
        description=f"give seconds, 1 to {LONGEST_RETENTION:.0f} (ten years): an event stays in "
        "its stream, for replays, until every group has acknowledged it and it is this old",
    ),
]

Modules = Annotated[
    tuple[str, ...],
    BeforeValidator(_modules),
    Field(
        description="give importable modules, separated by commas, like myapp.feishu,myapp.audit"
    ),
]

Group = Annotated[
    Name,
    AfterValidator(_group),
    Field(description="give 1 to 64 letters, digits, - or _; each group gets every event"),
]

StartFrom = Annotated[
    str,
    AfterValidator(_start),
    Field(
        description="give auto, now, all, or a time like 2h (ago) or 2026-07-29T10:00:00Z: there a "
        "group begins that does not exist yet"
    ),
]

RedisUrl = Annotated[
    str,
    AfterValidator(_redis_url),
    Field(
        repr=False,
        description="give a URL like redis://127.0.0.1:6379/0, rediss://… for TLS, "
        "unix:///run/redis.sock, redis+sentinel://host:26379,host:26379/service/0 "
        "or redis+cluster://host:6379,host:6379; in user and password write @ : / ? # and % as %40 "
        "%3A %2F %3F %23 and %25",
    ),
]

BrokerUrl = Annotated[
    str,
    AfterValidator(_broker_url),
    Field(
        repr=False,
        description="give the URL of a Redis for Celery's control commands, like "
        f"redis://127.0.0.1:6379/0 or redis+sentinel://…, but not of a Cluster; {NO_BROKER} to do "
        f"without them; or leave it out, and they share the Redis of {PREFIX}REDIS_URL",
    ),
]

Domain = Annotated[
    str,
    AfterValidator(_domain),
    Field(
        description="give feishu, lark, or a base URL like https://open.feishu.cn; plain http "
        "only for an address of this machine, like http://127.0.0.1:8719"
    ),
]

Eviction = Annotated[
    Literal["refuse", "accept"],
    BeforeValidator(_lower),
    Field(
        description="give refuse, or accept for a managed Redis whose maxmemory-policy cannot be "
        "set and which you know will never evict"
    ),
]

Unhandled = Annotated[
    Literal["dead", "done"],
    BeforeValidator(_lower),
    Field(
        description="give dead (events that no worker of the group has a handler for become dead "
        "letters), or done (they are logged once per type, and gone)"
    ),
]

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "off"],
    BeforeValidator(_level),
    Field(description="give debug, info, warning, error or off"),
]

LogFormat = Annotated[
    Literal["console", "json"],
    BeforeValidator(_lower),
    Field(description="give console or json"),
]
