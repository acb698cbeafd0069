from __future__ import annotations

import json
from typing import Any

import pytest

from flybridge.bridge.local.feishu.faults import Faults
from flybridge.bridge.local.feishu.gate import Gate, connection_id

ORIGIN = "ws://127.0.0.1:1"
CREDENTIALS = {"AppID": "cli_1", "AppSecret": "s3cret"}


@pytest.fixture
def gate() -> Gate:
    return Gate("cli_1", "s3cret", 7, 2, {"PingInterval": 120}, Faults(list, {}))


def ask(gate: Gate, body: object = CREDENTIALS, connected: int = 0) -> tuple[int, dict[str, Any]]:
    return gate.discover(json.dumps(body).encode(), ORIGIN, connected)


def target(gate: Gate) -> str:
    url = str(ask(gate)[1]["data"]["URL"])
    return url.removeprefix(ORIGIN)


def test_discovery_gives_a_url_and_the_client_config(gate: Gate) -> None:
    status, answer = ask(gate)

    assert (status, answer["code"]) == (200, 0)
    assert answer["data"]["URL"].startswith(f"{ORIGIN}/ws/v2?")
    assert "service_id=7" in answer["data"]["URL"]
    assert answer["data"]["ClientConfig"] == {"PingInterval": 120}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"AppID": "cli_2", "AppSecret": "s3cret"}, 1000040346),
        ({"AppID": "cli_1", "AppSecret": "wrong"}, 10014),
        ({"AppID": "cli_1", "AppSecret": ""}, 1000040344),
        ({"app_id": "cli_1", "app_secret": "s3cret"}, 1000040344),
    ],
)
def test_wrong_credentials_are_refused_by_code(gate: Gate, body: object, code: int) -> None:
    status, answer = ask(gate, body)
    assert (status, answer["code"]) == (200, code)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_a_bad_request(gate: Gate, body: bytes) -> None:
    assert gate.discover(body, ORIGIN, 0)[0] == 400


def test_the_connection_limit_counts_at_discovery_and_at_the_upgrade(gate: Gate) -> None:
    late = target(gate)

    assert ask(gate, connected=2)[1]["code"] == 1000040350
    refusal = gate.admit(late, 2)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (514, 1000040350)


def test_a_ticket_opens_once(gate: Gate) -> None:
    once = target(gate)

    assert gate.admit(once, 0) is None
    refusal = gate.admit(once, 0)
    assert refusal is not None
    assert refusal.status == 514


@pytest.mark.parametrize("change", ["ticket", "device_id"])
def test_a_ticket_must_match_its_connection(gate: Gate, change: str) -> None:
    forged = target(gate).replace(f"{change}=", f"{change}=0")
    assert gate.admit(forged, 0) is not None


def test_the_connection_id_is_the_device_id(gate: Gate) -> None:
    asked = target(gate)
    assert f"device_id={connection_id(asked)}&" in asked
    assert connection_id("/ws/v2") == ""
