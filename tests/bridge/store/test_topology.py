"""What Redis URLs say, and what seeds answer; no server is asked."""

from __future__ import annotations

from typing import Any

import pytest
from redis.crc import key_slot

from flybridge.bridge.store.topology import answer, parse, question
from flybridge.bridge.store.url_options import OptionInvalid

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
        "unix://run/redis.sock",
        "redis://a?socket_timeout=soon",
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^[^@]*$"):
        parse(url)


def test_servers_and_sentinels_have_credentials_of_their_own() -> None:
    topology = parse("rediss+sentinel://u:p%40@a/m/2?sentinel_password=s%20t&ssl_ca_certs=/ca.pem")

    assert topology.seed_login == {"password": "s t"}
    assert topology.login == {"username": "u", "password": "p@"}
    assert topology.arguments == {
        "host": "a", "port": 26379, "db": 2, "username": "u", "password": "p@",
        "ssl_ca_certs": "/ca.pem",
    }  # fmt: skip
    assert topology.tls_options == {"ssl_ca_certs": "/ca.pem"}


def test_nodes_of_a_cluster_have_the_same_credentials() -> None:
    assert parse("redis+cluster://u:p%40@a").seed_login == {"username": "u", "password": "p@"}


def test_user_and_password_may_stand_before_the_host_or_behind_the_question_mark() -> None:
    given = {"username": "u@x", "password": "p/w"}
    assert parse("redis://u%40x:p%2Fw@h").login == given
    assert parse("redis://h?username=u%40x&password=p%2Fw").login == given
    assert parse("unix:///s%20k?username=u%40x&password=p%2Fw").arguments["path"] == "/s k"
    assert parse("redis://u%40x:p%2Fw@h?username=v&password=q").login == given


def test_a_cluster_has_one_database() -> None:
    with pytest.raises(OptionInvalid, match="database 0 only"):
        parse("redis+cluster://h?db=1")
    assert parse("redis+cluster://h?db=0").db == 0


def test_all_secrets_of_a_url_are_found() -> None:
    found = parse("rediss+sentinel://u:one%40@a/m?sentinel_password=two&ssl_password=three").secrets
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
