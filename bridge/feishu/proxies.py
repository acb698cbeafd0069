"""Finds the proxy that leads to Feishu, the same for discovery and for the WebSocket.

It is the one that `HTTPS_PROXY` names, else `ALL_PROXY`, in lower case first, else the system's on
macOS and Windows. `HTTP_PROXY` is for plain http, which goes to this machine only and so past every
proxy. HTTP proxies with user and password are supported; others are refused with a sentence, since
the two connections would go different ways.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from flybridge.bridge.config.loopback import is_loopback
from flybridge.bridge.errors import SettingsInvalid

IGNORED = ("wss_proxy", "ws_proxy", "socks_proxy")
"""Proxy variables of other programs; here they would redirect only one of the two connections."""

_KINDS = {"https": "https", "wss": "https", "http": "http", "ws": "http"}
_PORTS = {"https": 443, "http": 80}
_PORT = 80
"""The port of a proxy that is given without one."""

_CURE = "give an HTTP proxy, like http://proxy.example:3128, or NO_PROXY=* to connect directly"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `str` gives it without user and password."""

    host: str
    """As in a URL: an IPv6 address in brackets."""
    port: int
    login: str = field(default="", repr=False)
    """`user:password`, percent-encoded as it was given; empty: none."""

    @property
    def url(self) -> str:
        """With user and password."""
        return f"http://{self.login}{'@' if self.login else ''}{self.host}:{self.port}"

    @property
    def authorization(self) -> str:
        """The value of `Proxy-Authorization`; empty: none is needed."""
        if not self.login:
            return ""
        return "Basic " + base64.b64encode(unquote(self.login).encode()).decode()

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL of http, https, ws or wss; None: connect directly.

    Raises:
        SettingsInvalid: the environment names a proxy that is not supported.
    """
    parts = urlsplit(url)
    kind, proxies = _KINDS[parts.scheme], getproxies()
    named = next((name for name in (kind, "all") if proxies.get(name)), None)
    if named is None or is_loopback(parts) or _is_exempt(parts, proxies.get("no")):
        return None
    return _read(proxies[named], _variable(named))


def through(proxy: Proxy | None) -> str:
    """The part of a sentence that names the proxy; empty without one."""
    return f" through the proxy {proxy}" if proxy is not None else ""


def ignored() -> list[str]:
    """The proxy variables that are set and have no effect."""
    return [name for name in os.environ if name.lower() in IGNORED and os.environ[name]]


def _read(value: str, name: str) -> Proxy:
    value = value.strip()
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname or "", parts.port or _PORT
        unquote(parts.netloc, errors="strict")
    except ValueError:
        raise SettingsInvalid([f"{name} is no URL of a proxy; {_CURE}."]) from None
    if parts.scheme != "http":
        raise SettingsInvalid(
            [f"{name} names a proxy of {parts.scheme}, which is not supported; {_CURE}."]
        )
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise SettingsInvalid([f"{name} is no URL of a proxy; {_CURE}."])
    login = parts.netloc.rpartition("@")[0]
    if login and ":" not in login:
        login += ":"
    return Proxy(f"[{host}]" if ":" in host else host, port, login)


def _variable(kind: str) -> str:
    """The name of the variable that has it, for people."""
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    return next((name for name in names if os.environ.get(name)), "The system's proxy")


def _is_exempt(url: SplitResult, listed: str | None) -> bool:
    """Whether to connect directly; `listed`: NO_PROXY, None where it is not set."""
    host = (url.hostname or "").rstrip(".")
    if listed is None:
        return bool(proxy_bypass(host))
    return is_listed(host, url.port or _PORTS[_KINDS[url.scheme]], re.split(r"[,\s]+", listed))


def is_listed(host: str, port: int, entries: Iterable[str]) -> bool:
    """Whether entries of NO_PROXY cover a host.

    An entry is `*`, a name with all below it, an address, or a network like 10.0.0.0/8. All but
    networks may have a `:port`.
    """
    return any(_covers(entry.lower(), host, port) for entry in entries if entry)


_ENTRY = re.compile(r"(?:\*?\.)?(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?")


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        address = _network(host)
        return address is not None and address[0] in network
    found = _ENTRY.fullmatch(entry)
    if found is None or int(found["port"] or port) != port:
        return False
    name = found["host"].strip("[]").rstrip(".")
    if (network := _network(name)) is not None:
        return _network(host) == network
    return host == name or host.endswith(f".{name}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address is a network of one."""
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
