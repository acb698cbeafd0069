from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.protocol.server_config import ClientConfig


def test_settings_are_read_and_clamped() -> None:
    assert ClientConfig().updated({"ReconnectInterval": 0, "PingInterval": 90.0}) == (
        ClientConfig(1, 90)
    )
    assert ClientConfig().updated({"PingInterval": 10**9}).ping_interval == 86_400


@pytest.mark.parametrize("value", [None, "30", True, [30], {}])
def test_a_setting_that_is_no_number_keeps_its_value(value: object) -> None:
    before = ClientConfig(1, 2)
    assert before.updated({"PingInterval": value}) == before


@given(st.binary(max_size=100))
def test_settings_never_raise(raw: bytes) -> None:
    assert ClientConfig().from_json(raw).ping_interval >= 1
