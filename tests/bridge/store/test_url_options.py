"""The options of Redis URLs: all of them work in every connection of ours, or are refused."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.store.client import async_client, sync_client
from flybridge.bridge.store.topology import parse
from flybridge.bridge.store.url_options import TABLE, OptionInvalid, read_options

GOOD = {
    "db": ("3", 3),
    "username": ("u%40x", "u@x"),
    "password": ("p%2Fw%25", "p/w%"),
    "sentinel_username": ("su", "su"),
    "sentinel_password": ("sp%20x", "sp x"),
    "client_name": ("fly-1", "fly-1"),
    "socket_timeout": ("3.5", 3.5),
    "socket_connect_timeout": ("0.5", 0.5),
    "socket_keepalive": ("No", False),
    "socket_read_size": ("4096", 4096),
    "health_check_interval": ("5", 5.0),
    "protocol": ("2", 2),
    "ssl_keyfile": ("/k.pem", "/k.pem"),
    "ssl_certfile": ("/c.pem", "/c.pem"),
    "ssl_ca_certs": ("/ca.pem", "/ca.pem"),
    "ssl_ca_path": ("/certs", "/certs"),
    "ssl_ca_data": ("PEM", "PEM"),
    "ssl_password": ("kp", "kp"),
    "ssl_ciphers": ("ECDHE%2BAESGCM", "ECDHE+AESGCM"),
    "ssl_check_hostname": ("false", False),
    "ssl_cert_reqs": ("Optional", "optional"),
    "ssl_min_version": ("TLSv1.3", ssl.TLSVersion.TLSv1_3),
    "ssl_include_verify_flags": ("VERIFY_X509_STRICT", [ssl.VerifyFlags.VERIFY_X509_STRICT]),
    "ssl_exclude_verify_flags": (
        "[VERIFY_X509_STRICT, VERIFY_X509_TRUSTED_FIRST]",
        [ssl.VerifyFlags.VERIFY_X509_STRICT, ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST],
    ),
}
ATTRIBUTES = {
    **{name: name for name in ("db", "username", "password", "client_name", "socket_timeout")},
    **{name: name for name in ("socket_connect_timeout", "health_check_interval")},
    "socket_keepalive": "socket_keepalive",
    "socket_read_size": "_socket_read_size",
}
"""Of redis-py's connections, by option."""
SCHEMES = {
    "redis": "redis://h",
    "rediss": "rediss://h",
    "unix": "unix:///run/redis.sock",
    "redis+sentinel": "redis+sentinel://h/m",
    "rediss+sentinel": "rediss+sentinel://h/m",
    "redis+cluster": "redis+cluster://h",
    "rediss+cluster": "rediss+cluster://h",
}
PAIRS = [(scheme, name) for scheme in SCHEMES for name in TABLE]


def refusal(query: str, scheme: str = "redis") -> str:
    with pytest.raises(OptionInvalid) as caught:
        read_options(query, scheme)
    return str(caught.value)


@pytest.mark.parametrize("name", TABLE)
def test_each_option_is_read_as_its_type(name: str) -> None:
    text, value = GOOD[name]
    assert read_options(f"{name}={text}", "rediss+sentinel") == {name: value}


@pytest.mark.parametrize(("scheme", "name"), PAIRS)
def test_an_option_reaches_connections_of_both_kinds_or_is_refused(scheme: str, name: str) -> None:
    url = f"{SCHEMES[scheme]}?{name}={GOOD[name][0]}"
    try:
        parse(url)
    except OptionInvalid:
        in_cluster = name == "db" and "cluster" in scheme
        assert in_cluster or TABLE[name].scheme not in scheme
        return

    for client in (sync_client(url, app_id="cli_a1"), async_client(url, app_id="cli_a1")):
        made: Any = client.connection_pool.make_connection()
        if name in ATTRIBUTES:
            assert getattr(made, ATTRIBUTES[name]) == GOOD[name][1]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("max_connections=50", "has the option max_connections, but Flybridge opens as many"),
        ("retry=3", "has the option retry, but "),
        ("retry_on_timeout=true", "has the option retry_on_timeout, but "),
        ("decode_responses=true", "has the option decode_responses, but "),
        ("legacy_responses=false", "has the option legacy_responses, but "),
        ("virtual_host=3", "the database is called db"),
        ("path=%2Fetc", "the path stands before the ?"),
        ("protocol=3", "has an option protocol with a wrong value; give 2"),
        ("db=-1", "an option db with a wrong value; give the number of a database"),
        ("db=one", "an option db with a wrong value"),
        ("db=1&db=2", "gives the option db 2 times; keep one"),
        ("socket_timeout=0.5", "an option socket_timeout with a wrong value; give seconds, 2 to"),
        ("socket_timeout=nan", "an option socket_timeout with a wrong value"),
        ("socket_keepalive=maybe", "give true or false"),
        ("client_name=two%20words", "without spaces"),
        ("health_check_interval=inf", "give seconds"),
        ("ssl_ca_certs=/ca.pem", "which is for TLS"),
        ("sentinel_password=x", "which is for Sentinels"),
        ("sockettimeout=3", "an unknown option sockettimeout (did you mean socket_timeout?)"),
        ("nonsense", "an unknown option nonsense; there are client_name, db, "),
        ("p%40ssw0rd!", "has an unknown option behind its ?; there are"),
    ],
)
def test_any_other_option_is_refused_with_what_to_do(query: str, sentence: str) -> None:
    assert sentence in refusal(query)


def test_tls_takes_known_words_only() -> None:
    assert read_options("ssl_cert_reqs=CERT_REQUIRED", "rediss") == {"ssl_cert_reqs": "required"}
    assert "TLSv1.2 or TLSv1.3" in refusal("ssl_min_version=1.4", "rediss")
    assert "none, optional or required" in refusal("ssl_cert_reqs=some", "rediss")
    assert "VERIFY_X509_STRICT" in refusal("ssl_exclude_verify_flags=ALL", "rediss")


def test_an_option_without_a_value_is_not_given() -> None:
    assert read_options("password=&db=", "redis") == {}


def said(query: str, scheme: str) -> str:
    """The sentence about a query, or nothing."""
    try:
        read_options(query, scheme)
    except OptionInvalid as error:
        return str(error)
    return ""


@given(st.text(), st.sampled_from(sorted(SCHEMES)))
def test_any_query_is_read_or_refused_with_a_sentence(query: str, scheme: str) -> None:
    sentence = said(query, scheme)
    assert not sentence or ";" in sentence


@given(st.sampled_from(sorted(TABLE)), st.text(min_size=12, alphabet="#@$0123456789"))
def test_a_refused_value_is_not_repeated(name: str, value: str) -> None:
    assert value not in said(f"{name}={value}", "rediss+sentinel")
