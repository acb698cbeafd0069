"""The options behind the `?` of a Redis URL: which there are, and how their values are read.

Each works for bridge, worker, command line and Celery's broker alike, with every kind of URL, or is
refused with a sentence. A sentence never repeats a value, which may be secret.
"""

from __future__ import annotations

import difflib
import math
import re
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

TRUE, FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})

SHORTEST_TIMEOUT = 2.0
"""Seconds. Workers have Redis wait up to 1 s for new events before it answers."""
LONGEST_TIMEOUT = 60.0
"""Seconds for which a half-open connection may hold up its user."""


class OptionInvalid(ValueError):
    """An option cannot be used. The message is the predicate of a sentence about the URL."""


@dataclass(frozen=True, slots=True)
class Option:
    """How an option is read."""

    read: Callable[[str], Any]
    """Raises ValueError or KeyError for a value of another kind."""
    wanted: str
    """What to give: the second half of the sentence that refuses a value."""
    scheme: str = ""
    """A key of `_SCHEMES` that the scheme of the URL must contain; empty for any."""


def _switch(text: str) -> bool:
    word = text.lower()
    if word not in TRUE | FALSE:
        raise ValueError
    return word in TRUE


def _within(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not least <= number <= most:
            raise ValueError
        return number

    return read


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError
        return number

    return read


def _client_name(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):  # what CLIENT SETNAME takes
        raise ValueError
    return text


def _verify_flags(text: str) -> list[ssl.VerifyFlags]:
    return [ssl.VerifyFlags[name.strip()] for name in text.strip("[]").split(",")]


def _tls_version(text: str) -> ssl.TLSVersion:
    name = text.replace(".", "_")
    return ssl.TLSVersion(int(text)) if text.isdigit() else ssl.TLSVersion[name]


def _protocol(text: str) -> int:
    if text != "2":
        raise ValueError
    return 2


def _cert_reqs(text: str) -> str:
    word = text.lower().removeprefix("cert_")  # as kombu's URLs write it
    if word not in {"none", "optional", "required"}:
        raise ValueError
    return word


_TIMEOUT = Option(
    _within(SHORTEST_TIMEOUT, LONGEST_TIMEOUT),
    f"give seconds, {SHORTEST_TIMEOUT:g} to {LONGEST_TIMEOUT:g}",
)
_TEXT = Option(str, "give a text")
_TLS_SWITCH = Option(_switch, "give true or false", "rediss")
_TLS_TEXT = Option(str, "give a text", "rediss")
_TLS_FLAGS = Option(
    _verify_flags, "give names of ssl.VerifyFlags, like VERIFY_X509_STRICT, with commas", "rediss"
)

TABLE: Mapping[str, Option] = {
    "db": Option(_whole(0), "give the number of a database"),
    "username": _TEXT,
    "password": _TEXT,
    "sentinel_username": Option(str, "give a text", "sentinel"),
    "sentinel_password": Option(str, "give a text", "sentinel"),
    "client_name": Option(_client_name, "give a name of ASCII characters without spaces"),
    "socket_timeout": _TIMEOUT,
    "socket_connect_timeout": Option(
        _within(0.1, LONGEST_TIMEOUT), f"give seconds, 0.1 to {LONGEST_TIMEOUT:g}"
    ),
    "socket_keepalive": Option(_switch, "give true or false", "redis"),
    "socket_read_size": Option(_whole(1024), "give bytes, 1024 at least"),
    "health_check_interval": Option(
        _within(0, math.nextafter(math.inf, 0)), "give seconds, or 0 for no checks"
    ),
    "protocol": Option(_protocol, "give 2, the protocol that Flybridge speaks"),
    "ssl_keyfile": _TLS_TEXT,
    "ssl_certfile": _TLS_TEXT,
    "ssl_ca_certs": _TLS_TEXT,
    "ssl_ca_path": _TLS_TEXT,
    "ssl_ca_data": _TLS_TEXT,
    "ssl_password": _TLS_TEXT,
    "ssl_ciphers": _TLS_TEXT,
    "ssl_check_hostname": _TLS_SWITCH,
    "ssl_cert_reqs": Option(_cert_reqs, "give none, optional or required", "rediss"),
    "ssl_min_version": Option(_tls_version, "give TLSv1.2 or TLSv1.3", "rediss"),
    "ssl_include_verify_flags": _TLS_FLAGS,
    "ssl_exclude_verify_flags": _TLS_FLAGS,
}
"""Every option that is supported."""

SECRETS = frozenset({"password", "sentinel_password", "ssl_password"})
"""Options whose values are secrets."""

FILES = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path")
"""Options whose values are paths."""

_POOLS = "Flybridge opens as many connections as it needs"
_REPEATS = "Flybridge knows itself which commands may be sent again"
_REPLIES = "Flybridge needs Redis' replies as they are"
_REFUSED: Mapping[str, str] = {
    "max_connections": _POOLS,
    "timeout": _POOLS,
    "retry": _REPEATS,
    "retry_on_error": _REPEATS,
    "retry_on_timeout": _REPEATS,
    "decode_responses": _REPLIES,
    "encoding": _REPLIES,
    "encoding_errors": _REPLIES,
    "legacy_responses": _REPLIES,
    "virtual_host": "the database is called db",
    "host": "the host stands before the ?",
    "port": "the port stands before the ?",
    "path": "the path stands before the ?",
}
"""Options of redis-py and kombu that are not allowed, and why."""


def read_options(query: str, scheme: str) -> dict[str, Any]:
    """The options of a URL by name, as redis-py's connections take them.

    An option without a value counts as not given.

    Args:
        query: percent-encoded.

    Raises:
        OptionInvalid: one of them is unknown, not for this scheme, given twice, or has a wrong
            value.
    """
    given = parse_qsl(query, keep_blank_values=True)
    for name, count in Counter(name for name, _ in given).items():
        _check_name(name, scheme)
        if count > 1:
            raise OptionInvalid(f"gives the option {name} {count} times; keep one")
    return {name: _value(name, text) for name, text in given if text}


def _check_name(name: str, scheme: str) -> None:
    if name in _REFUSED:
        raise OptionInvalid(f"has the option {name}, but {_REFUSED[name]}; leave it out")
    option = TABLE.get(name)
    if option is None:
        raise OptionInvalid(f"has {_unknown(name)}; there are {', '.join(sorted(TABLE))}")
    if option.scheme not in scheme:
        raise OptionInvalid(
            f"has the option {name}, which is for {_SCHEMES[option.scheme]} only; leave it out"
        )


_SCHEMES = {
    "redis": "servers reached by TCP",
    "rediss": "TLS (rediss://, rediss+sentinel://, rediss+cluster://)",
    "sentinel": "Sentinels (redis+sentinel://, rediss+sentinel://)",
}


def _unknown(name: str) -> str:
    """How to name an unknown option: it may be a part of a password with a ? in it."""
    if not re.fullmatch(r"[A-Za-z_]{1,40}", name):
        return "an unknown option behind its ?"
    near = difflib.get_close_matches(name, TABLE, n=1)
    return f"an unknown option {name}{f' (did you mean {near[0]}?)' if near else ''}"


def _value(name: str, text: str) -> Any:
    option = TABLE[name]
    try:
        return option.read(text)
    except (ValueError, KeyError, OverflowError):
        raise OptionInvalid(f"has an option {name} with a wrong value; {option.wanted}") from None
