"""What Redis URLs say, and what seeds answer; no server is asked."""

from __future__ import annotations

from typing import Any

import pytest
from redis.connection import parse_url
from redis.crc import key_slot

from bridge.topology import answer, parse, question, takes_options

ASKED = ("seed", 7000)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@host", "redis://host:6379/0"),
        ("rediss://[::1]:6380/3", "rediss://[::1]:6380/3"),
        ("redis://host/1?db=2", "redis://host:6379/2"),
        ("unix://u@/run/redis.sock?password=p", "unix:///run/redis.sock"),
        ("redis+sentinel://u:p@a,b:26380/my.master/2", "sentinel my.master via a:26379,b:26380"),
        ("rediss+sentinel://[::1]:1,[::2]:2/m", "sentinel m via [::1]:1,[::2]:2"),
        ("redis+cluster://u:p@a,b:7001/0", "cluster via a:6379,b:7001"),
        ("rediss+cluster://a/", "cluster via a:6379"),
    ],
)
def test_every_kind_of_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert str(parse(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:26379",
        "redis+sentinel://a:26379/",
        "redis+sentinel://a:26379/my master",
        "redis+sentinel://a:26379/m/db",
        "redis+sentinel:///m",
        "redis+sentinel://a,,b/m",
        "redis+sentinel://a:0/m",
        "redis+cluster://a/1",
        "redis+cluster://",
        "redis+nonsense://a",
        "sentinel://a/m",
        "redis://a,b",
        "redis://:se#cret@a",
        "redis://a?socket_timeout=soon",
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^[^@]*$"):
        parse(url)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("redis://a?socket_timeout=2&client_name=x&max_connections=9&protocol=3", True),
        ("rediss+sentinel://a/m?ssl_ca_certs=/ca.pem&sentinel_password=p", True),
        ("unix:///run/redis.sock?password=p&db=1", True),
        ("redis://a?nonsense=1", False),
        ("redis://a?ssl_ca_certs=/ca.pem", False),
        ("rediss://a?ssl_cert_reqs=some", False),
        ("redis+sentinel://a/m?ssl_ca_certs=/ca.pem", False),
        ("redis://a?decode_responses=true", False),
    ],
)
def test_options_are_those_that_connections_take(url: str, taken: bool) -> None:
    assert takes_options(parse(url)) is taken


def test_servers_and_sentinels_have_credentials_of_their_own() -> None:
    topology = parse("redis+sentinel://u:p%40@a/m/2?sentinel_password=s%20t&ssl_ca_certs=/ca.pem")

    settings = parse_url(topology.server_url)

    assert topology.seed_credentials == {"password": "s t"}
    assert (settings["username"], settings["password"]) == ("u", "p@")
    assert (settings["db"], settings["ssl_ca_certs"]) == (2, "/ca.pem")
    assert not [name for name in settings if name.startswith("sentinel")]


def test_nodes_of_a_cluster_have_the_same_credentials() -> None:
    assert parse("redis+cluster://u:p%40@a").seed_credentials == {"username": "u", "password": "p@"}


def test_all_secrets_of_a_url_are_found() -> None:
    found = parse("redis+sentinel://u:one%40@a/m?sentinel_password=two&ssl_password=three").secrets
    assert set(found) == {"one@", "two", "three"}
    assert "hush" in parse("unix:///run/redis.sock?password=hush").secrets
    assert "hush" not in repr(parse("redis+cluster://:hush@a"))


def test_sentinels_are_asked_for_their_service() -> None:
    topology = parse("redis+sentinel://a/m")

    assert question(topology) == ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m")
    assert answer(topology, "", [b"10.0.0.1", b"6380"], ASKED) == ("10.0.0.1", 6380)
    assert answer(topology, "", None, ASKED) is None


@pytest.mark.parametrize(
    ("host", "found"), [(b"10.0.0.1", "10.0.0.1"), (b"", "seed"), (None, "seed"), (b"?", "seed")]
)
def test_a_node_is_asked_who_owns_the_slot_of_the_app(host: Any, found: str) -> None:
    topology, slot = parse("redis+cluster://a"), key_slot(b"flybridge:{cli_a1}:lease")
    reply = [
        [0, slot - 1, [b"other", 1, b"id"]],
        [slot, 16383, [host, 7001, b"id", []], [b"replica", 7002, b"id"]],
    ]

    assert question(topology) == ("CLUSTER", "SLOTS")
    assert answer(topology, "cli_a1", reply, ASKED) == (found, 7001)
    assert answer(topology, "cli_a1", reply[:1], ASKED) is None
