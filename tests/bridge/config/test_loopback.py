from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from flybridge.bridge.config.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1:8719", "127.9.9.9", "[::1]:8719", "localhost"])
def test_this_machine_has_many_names(host: str) -> None:
    assert is_loopback(urlsplit(f"http://{host}"))


@pytest.mark.parametrize("host", ["", "10.0.0.1", "[fe80::1]", "localhost.evil.com"])
def test_everything_else_is_another_machine(host: str) -> None:
    assert not is_loopback(urlsplit(f"http://{host}"))
