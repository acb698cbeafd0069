"""Which proxy leads to Feishu, and that discovery and WebSocket take the same."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.errors import FeishuRefused, FeishuUnavailable, SettingsInvalid
from flybridge.bridge.feishu.discovery import discover
from flybridge.bridge.feishu.proxies import ignored, is_listed, proxy_for
from flybridge.bridge.feishu.upgrade import open_websocket

NAMES = ("http", "https", "all", "no", "ws", "wss", "socks")
DISCOVERY, WEBSOCKET = "https://open.feishu.invalid", "wss://msg-frontier.feishu.invalid/ws?x=1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p.example:3128"}, "http://p.example:3128"),
        ({"HTTPS_PROXY": "http://p.example:3128/"}, "http://p.example:3128"),
        ({"HTTPS_PROXY": "p.example:3128"}, "http://p.example:3128"),
        ({"HTTPS_PROXY": " HTTP://p.example:3128 "}, "http://p.example:3128"),
        ({"HTTPS_PROXY": "10.0.0.1:3128"}, "http://10.0.0.1:3128"),
        ({"HTTPS_PROXY": "http://[fd00::1]:3128"}, "http://[fd00::1]:3128"),
        ({"HTTPS_PROXY": "http://p.example"}, "http://p.example:80"),
        ({"HTTPS_PROXY": "http://user:pass@p.example:1"}, "http://p.example:1"),
        ({"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}, "http://lower:1"),
        ({"ALL_PROXY": "http://p.example:1"}, "http://p.example:1"),
        ({"all_proxy": "http://all:1", "https_proxy": "http://https:1"}, "http://https:1"),
        ({"HTTP_PROXY": "http://p.example:1"}, None),
        ({"wss_proxy": "http://p.example:1", "socks_proxy": "socks5h://p.example:1"}, None),
        ({"HTTPS_PROXY": "http://https:1", "socks_proxy": "socks5://p:1"}, "http://https:1"),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://p.example:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "socks5h://p.example:1", "no_proxy": ".invalid"}, None),
    ],
)
def test_both_ways_take_the_proxy_of_https(
    environment: pytest.MonkeyPatch, variables: dict[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    found = [proxy_for(url) for url in (DISCOVERY, WEBSOCKET)]
    assert [each and str(each) for each in found] == [proxy, proxy]


@pytest.mark.parametrize(
    "value",
    [
        "socks5h://user:canary@p.example:1",
        "socks5://p.example:1",
        "https://user:canary@p.example:1",
        "ftp://p.example",
        "http://",
        "http://p.example:99999",
        "http://user:canary%ff@p.example:1",
        "http://p.example:1/path",
        "http://user:can#ary@p.example:1",
        "http://[bad:1",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_what_is_not_supported_is_refused_with_a_sentence_by_both(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=f"^{name} .*NO_PROXY") as told:
        await discover(DISCOVERY, "cli_1", "secret")
    assert "canary" not in str(told.value)
    with pytest.raises(FeishuRefused, match=f"^{name} .*NO_PROXY"):
        await open_websocket(WEBSOCKET, close_timeout=1, write_limit=1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "wss://localhost/x", "ws://[::1]:1"])
def test_no_proxy_leads_to_this_machine(environment: pytest.MonkeyPatch, url: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        environment.setenv(name, "http://p.example:1")
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    ("entry", "host", "covered"),
    [
        ("*", "open.feishu.cn", True),
        ("feishu.cn", "open.feishu.cn", True),
        (".feishu.cn", "open.feishu.cn", True),
        ("*.feishu.cn", "open.feishu.cn", True),
        ("Open.Feishu.CN.", "open.feishu.cn", True),
        ("eishu.cn", "open.feishu.cn", False),
        ("open.feishu.cn.evil", "open.feishu.cn", False),
        ("open.feishu.cn:443", "open.feishu.cn", True),
        ("open.feishu.cn:80", "open.feishu.cn", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("0.1.2.3", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::1", "fd00::1", True),
        ("[fd00::1]:443", "fd00:0::1", True),
        ("[fd00::1]:80", "fd00::1", False),
        ("10.0.0.0/8", "open.feishu.cn", False),
        (":", "open.feishu.cn", False),
    ],
)
def test_what_an_entry_of_no_proxy_covers(entry: str, host: str, *, covered: bool) -> None:
    assert is_listed(host, 443, ["elsewhere.example", "", entry]) is covered


@given(st.text(), st.sampled_from(["open.feishu.cn", "10.0.0.1", "fd00::1"]))
def test_no_entry_of_no_proxy_breaks_anything(entry: str, host: str) -> None:
    assert is_listed(host, 443, [entry]) in (True, False)


def test_variables_that_lead_nowhere_are_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WSS_PROXY", "http://p.example:1")
    environment.setenv("socks_proxy", "socks5h://p.example:1")
    environment.setenv("ws_proxy", "")
    assert sorted(ignored()) == ["WSS_PROXY", "socks_proxy"]


class TestTheWire:
    """A proxy that notes what it is asked, and refuses."""

    @pytest.fixture
    async def asked(self, environment: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError):
                asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 407 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            self.place = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            yield asked

    @pytest.mark.parametrize(
        ("login", "sent"),
        [("", b""), ("user:p%40ss@", b"user:p@ss"), ("user:@", b"user:"), ("user@", b"user:")],
    )
    async def test_both_ask_it_for_a_tunnel_with_the_same_login(
        self, environment: pytest.MonkeyPatch, asked: list[bytes], login: str, sent: bytes
    ) -> None:
        environment.setenv("HTTPS_PROXY", f"http://{login}{self.place}")
        told = []
        with pytest.raises(FeishuUnavailable) as error:
            await discover(DISCOVERY, "cli_1", "secret")
        told.append(str(error.value))
        with pytest.raises(FeishuUnavailable) as error:
            await open_websocket(WEBSOCKET, close_timeout=1, write_limit=1)
        told.append(str(error.value))
        assert [line.split(b" HTTP")[0] for line in asked] == [
            b"CONNECT open.feishu.invalid:443",
            b"CONNECT msg-frontier.feishu.invalid:443",
        ]
        header = b"proxy-authorization: basic " + base64.b64encode(sent).lower() + b"\r\n"
        assert [header in line.lower() for line in asked] == [bool(sent)] * 2
        for sentence in told:
            assert f"through the proxy http://{self.place} " in sentence
            assert "407" in sentence
            assert "p%40ss" not in sentence


async def test_a_redirect_is_not_followed(environment: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def serve(reader: Any, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 x\r\nLocation: /portal\r\nContent-Length: 0\r\n")
        writer.write(b"Connection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(FeishuUnavailable, match="HTTP 302"):
            await discover(url, "cli_1", "secret")
    assert len(asked) == 1
