from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.client_config import ClientConfig


def test_settings_are_read_and_clamped() -> None:
    fields = {
        "ReconnectCount": -7,
        "ReconnectInterval": 0,
        "ReconnectNonce": 10**9,
        "PingInterval": 90.0,
    }
    assert ClientConfig().updated(fields) == ClientConfig(-1, 1, 86_400, 90)
    assert ClientConfig().updated({"ReconnectCount": 10**6}).reconnect_count == 10_000


@pytest.mark.parametrize("value", [None, "30", True, [30], {}])
def test_a_setting_that_is_no_number_keeps_its_value(value: object) -> None:
    before = ClientConfig(1, 2, 3, 4)
    assert before.updated({"PingInterval": value}) == before


@given(st.binary(max_size=100))
def test_settings_never_raise(raw: bytes) -> None:
    assert ClientConfig().from_json(raw).ping_interval >= 1
