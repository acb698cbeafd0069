"""Parses Redis URLs: one server, the service of Sentinels, or a Cluster.

Sentinel:  ``redis+sentinel://[user:password@]host:port[,host:port…]/service[/db]``; user and
password are those of the Redis servers, the Sentinels' own go into ``?sentinel_password=``.
Cluster:   ``redis+cluster://[user:password@]host:port[,host:port…]``.
With ``rediss+`` every connection is by TLS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from redis.crc import key_slot

from flybridge.bridge.store.url_options import SECRETS, OptionInvalid, read_options

Address = tuple[str, int]
"""Host and port."""

Kind = Literal["server", "sentinel", "cluster"]

_KINDS: Mapping[str, Kind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_PATHS: Mapping[Kind, str] = {
    "server": r"(?:/(?P<db>\d*))?",
    "sentinel": r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>\d*))?",
    "cluster": r"(?:/0?)?",
}
_PORTS: Mapping[Kind, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_SENTINEL = "sentinel_"


@dataclass(frozen=True, slots=True)
class Topology:
    """A parsed Redis URL."""

    kind: Kind
    tls: bool
    nodes: tuple[Address, ...]
    """Servers to ask for the primary, or the one server; none for a Unix socket."""
    socket: str
    """Path of the Unix socket; empty for servers reached by TCP."""
    service: str
    """The name that the Sentinels use for the primary; empty without Sentinels."""
    db: int
    login: Mapping[str, str] = field(repr=False)
    """Username and password of the Redis servers, as far as given."""
    seed_login: Mapping[str, str] = field(repr=False)
    """Username and password of the seeds; Sentinels have their own."""
    options: Mapping[str, Any] = field(repr=False)
    """The URL's other options, as redis-py's connections take them."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of redis-py's connections: place, database, login and options.

        With Sentinels or a Cluster the place is that of the first node.
        """
        place = {"path": self.socket} if self.socket else dict(_place(self.nodes[0]))
        return {**place, "db": self.db, **self.login, **self.options}

    @property
    def tls_options(self) -> dict[str, Any]:
        """The options that concern TLS."""
        return {name: value for name, value in self.options.items() if name.startswith("ssl_")}

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown."""
        given = (self.login, self.seed_login, self.options)
        return tuple(each[name] for each in given for name in SECRETS & each.keys())

    def __str__(self) -> str:
        """The URL as it may be shown: without user, password and options."""
        places = ",".join(f"{bracketed(host)}:{port}" for host, port in self.nodes)
        if self.kind == "sentinel":
            return f"sentinel {self.service} via {places}"
        if self.kind == "cluster":
            return f"cluster via {places}"
        if self.socket:
            return f"unix://{self.socket}"
        return f"redis{'s' * self.tls}://{places}/{self.db}"


def parse(url: str) -> Topology:
    """Parse a URL.

    As in redis-py, user and password before the host win over those behind the `?`, and a database
    behind it wins over that of the path.

    Raises:
        OptionInvalid: an option behind its `?` cannot be used; it says why.
        ValueError: it is no such URL.
    """
    parts = urlsplit(url)
    kind = _KINDS.get(parts.scheme)
    if kind is None or parts.fragment:
        raise ValueError("not a scheme of Redis, or a # in it")
    is_socket = parts.scheme == "unix"
    path = re.fullmatch(r"/.+" if is_socket else _PATHS[kind], parts.path)
    if path is None:
        raise ValueError("not a path for this scheme")
    found = path.groupdict()
    nodes = _nodes(parts, kind)
    options = read_options(parts.query, parts.scheme)
    options.pop("protocol", None)  # there is no other
    db = options.pop("db", int(found.get("db") or 0))
    if kind == "cluster" and db:
        raise OptionInvalid("has an option db, but a Cluster has database 0 only; leave it out")
    seed_login, login = _taken(options, _SENTINEL), {**_taken(options), **_login(parts)}
    return Topology(
        kind,
        tls=parts.scheme.startswith("rediss"),
        nodes=nodes,
        socket=unquote(parts.path) if is_socket else "",
        service=found.get("service") or "",
        db=db,
        login=login,
        seed_login=seed_login if kind == "sentinel" else login,
        options=options,
    )


def _taken(options: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Username and password, removed from the options."""
    names = [name for name in ("username", "password") if prefix + name in options]
    return {name: options.pop(prefix + name) for name in names}


def _login(parts: SplitResult) -> dict[str, str]:
    given = {"username": parts.username, "password": parts.password}
    return {name: unquote(text) for name, text in given.items() if text}


def _place(node: Address) -> Mapping[str, Any]:
    host, port = node
    return {"host": host, "port": port}


def question(topology: Topology) -> tuple[str, ...]:
    """The command that asks a seed who the primary is."""
    if topology.kind == "sentinel":
        return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", topology.service)
    return ("CLUSTER", "SLOTS")


def answer(topology: Topology, app_id: str, reply: Any, asked: Address) -> Address | None:
    """Read a seed's raw reply: the address of the primary, None when this seed knows none.

    Redis: "SENTINEL GET-MASTER-ADDR-BY-NAME" answers host and port or nil; "CLUSTER SLOTS" answers
    [first, last, [host, port, …], replicas…] each, an empty host being the one that was asked.
    """
    if topology.kind == "sentinel":
        return (reply[0].decode(), int(reply[1])) if reply else None
    slot = key_slot(app_id.encode())
    owners = [owner for first, last, owner, *_ in reply if first <= slot <= last]
    if not owners:
        return None
    host = (owners[0][0] or b"").decode()
    return (asked[0] if host in {"", "?"} else host), int(owners[0][1])


def _nodes(parts: SplitResult, kind: Kind) -> tuple[Address, ...]:
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme == "unix":
        if place:
            raise ValueError("two slashes, and so the first folder taken for a host")
        return ()
    places = place.split(",")
    if kind == "server" and len(places) > 1:
        raise ValueError("one server has one host")
    return tuple(_address(place, _PORTS[kind]) for place in places)


def _address(place: str, default_port: int) -> Address:
    parts = urlsplit(f"//{place}")
    if not parts.hostname or parts.port == 0 or parts.path:
        raise ValueError("no host or port 0")
    return parts.hostname, parts.port or default_port


def bracketed(host: str) -> str:
    """A host as in URLs: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
