"""What a Redis URL says: one server, the service of Sentinels, or a Cluster. No I/O.

Sentinel:  ``redis+sentinel://[user:password@]host:port[,host:port…]/service[/db]``; user and
password are those of the Redis servers, the Sentinels' own go into ``?sentinel_password=``.
Cluster:   ``redis+cluster://[user:password@]host:port[,host:port…]``.
With ``rediss+`` every connection is by TLS. Other options are those of redis-py's URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.connection import Connection, SSLConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import RedisError

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
_SECRETS = {"password", "ssl_password", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class Topology:
    """A URL taken apart."""

    kind: Kind
    tls: bool
    nodes: tuple[Address, ...]
    """Servers to ask for the primary, or the one server; none for a Unix socket."""
    service: str
    """What the Sentinels call the primary; empty without Sentinels."""
    db: int
    url: str = field(repr=False)
    parts: SplitResult = field(repr=False)

    @property
    def options(self) -> dict[str, str]:
        """Those of the URL's query."""
        return dict(parse_qsl(self.parts.query))

    @property
    def server_url(self) -> str:
        """For redis-py: as if the first node were the server, without TLS."""
        if self.kind == "server":
            return self.url
        login, at, _ = self.parts.netloc.rpartition("@")
        host, port = self.nodes[0]
        query = urlencode(
            {name: text for name, text in self.options.items() if not name.startswith(_SENTINEL)}
        )
        return f"redis://{login}{at}{_bracketed(host)}:{port}/{self.db}?{query}"

    @property
    def seed_credentials(self) -> dict[str, str]:
        """User and password of who is asked for the primary: Sentinels have their own."""
        if self.kind == "sentinel":
            given = {name: self.options.get(_SENTINEL + name) for name in ("username", "password")}
        else:
            given = {"username": self.parts.username, "password": self.parts.password}
            given = {name: text and unquote(text) for name, text in given.items()}
        return {name: text for name, text in given.items() if text}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no log line."""
        hidden = [text for name, text in self.options.items() if name in _SECRETS]
        return (unquote(self.parts.password or ""), *hidden)

    def __str__(self) -> str:
        """As it may be shown: without user, password and options."""
        places = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.nodes)
        if self.kind == "sentinel":
            return f"sentinel {self.service} via {places}"
        if self.kind == "cluster":
            return f"cluster via {places}"
        if self.parts.scheme == "unix":
            return f"unix://{self.parts.path}"
        return f"{self.parts.scheme}://{places}/{self.db}"


def parse(url: str) -> Topology:
    """Take a URL apart.

    Raises:
        ValueError: it is none of those above.
    """
    parts = urlsplit(url)
    kind = _KINDS.get(parts.scheme)
    if kind is None or parts.fragment:
        raise ValueError("not a scheme of Redis, or a # in it")
    path = re.fullmatch(r"/.+" if parts.scheme == "unix" else _PATHS[kind], parts.path)
    if path is None:
        raise ValueError("not a path for this scheme")
    found = path.groupdict()
    topology = Topology(
        kind,
        tls=parts.scheme.startswith("rediss"),
        nodes=_nodes(parts, kind),
        service=found.get("service") or "",
        db=int(dict(parse_qsl(parts.query)).get("db") or found.get("db") or 0),
        url=url,
        parts=parts,
    )
    parse_url(topology.server_url)  # type: ignore[no-untyped-call]
    return topology


def takes_options(topology: Topology) -> bool:
    """Whether our connections take the URL's options; redis-py would tell at the first command
    only, by a TypeError."""
    settings = parse_url(topology.server_url)  # type: ignore[no-untyped-call]
    made = settings.pop("connection_class", SSLConnection if topology.tls else Connection)
    settings.pop("max_connections", None)  # the pool's
    try:
        made(**settings)
    except (TypeError, RedisError):
        return False
    return "decode_responses" not in settings  # replies have to be bytes


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
    if parts.scheme == "unix":
        return ()
    places = parts.netloc.rpartition("@")[2].split(",")
    if kind == "server" and len(places) > 1:
        raise ValueError("one server has one host")
    return tuple(_address(place, _PORTS[kind]) for place in places)


def _address(place: str, default_port: int) -> Address:
    parts = urlsplit(f"//{place}")
    if not parts.hostname or parts.port == 0 or parts.path:
        raise ValueError("no host or port 0")
    return parts.hostname, parts.port or default_port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
