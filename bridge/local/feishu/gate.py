"""Decides who may connect to the local Feishu: the answers of discovery, and one-time tickets."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from flybridge.bridge.local.feishu.faults import AUTH_FAILED, CONNECTION_LIMIT, Faults, Refusal

CREDENTIAL_MISSING = 1_000_040_344
APP_ID_INVALID = 1_000_040_346
APP_SECRET_INVALID = 10_014
"""Our choice: what Feishu answers here is not documented; any other code is a client error."""

PATH = "/ws/v2"


@dataclass(slots=True)
class Gate:
    """The checks between a client and its connection.

    Args:
        service_id: Feishu: clients copy it into their pings.
        max_connections: Feishu: 50 for one app, at discovery and at the upgrade.
    """

    app_id: str
    app_secret: str
    service_id: int
    max_connections: int
    config: Mapping[str, int]
    faults: Faults
    tickets: set[tuple[str, str]] = field(default_factory=set)
    """Connection id and ticket of every URL handed out and not used yet."""

    def discover(self, body: bytes, origin: str, connected: int) -> tuple[int, dict[str, Any]]:
        """The HTTP status and JSON of `POST /callback/ws/endpoint`.

        Args:
            origin: scheme, host and port of the WebSocket side.
            connected: live connections.
        """
        refusal = self.faults.take("refuse_discovery") or self._refusal(body, connected)
        if refusal:
            return refusal.status, {"code": refusal.code, "msg": refusal.msg}
        url = f"{origin}{PATH}?{urlencode(self._one_time_query())}"
        return 200, {"code": 0, "msg": "", "data": {"URL": url, "ClientConfig": {**self.config}}}

    def admit(self, target: str, connected: int) -> Refusal | None:
        """Check the target of an upgrade and use its ticket up; None: welcome."""
        refusal: Refusal | None = self.faults.take("refuse_upgrade")
        if refusal:
            return refusal
        ticket = (connection_id(target), _parameter(target, "ticket"))
        if ticket not in self.tickets:
            return Refusal(AUTH_FAILED, 1, "ticket is unknown or used; ask discovery for a new URL")
        self.tickets.discard(ticket)
        if connected >= self.max_connections:
            return Refusal(AUTH_FAILED, CONNECTION_LIMIT, "too many connections")
        return None

    def _refusal(self, body: bytes, connected: int) -> Refusal | None:
        try:
            asked = json.loads(body)
            app_id, app_secret = asked.get("AppID"), asked.get("AppSecret")
        except (ValueError, AttributeError):
            return Refusal(400, 1, "the body is not a JSON object")
        if not app_id or not app_secret:
            return Refusal(200, CREDENTIAL_MISSING, "AppID or AppSecret is missing")
        if app_id != self.app_id:
            return Refusal(200, APP_ID_INVALID, "app_id is invalid")
        if app_secret != self.app_secret:
            return Refusal(200, APP_SECRET_INVALID, "app secret invalid")
        if connected >= self.max_connections:
            return Refusal(200, CONNECTION_LIMIT, "the number of connections exceeded the limit")
        return None

    def _one_time_query(self) -> dict[str, str]:
        connection_id = str(7 * 10**18 + secrets.randbelow(10**18))
        ticket = secrets.token_hex(16)
        self.tickets.add((connection_id, ticket))
        return {
            "fpid": "493",
            "aid": "552564",
            "device_id": connection_id,
            "access_key": secrets.token_hex(16),
            "service_id": str(self.service_id),
            "ticket": ticket,
        }


def connection_id(target: str) -> str:
    """The `device_id` in the target of an upgrade. Feishu: the name of the connection in logs."""
    return _parameter(target, "device_id")


def _parameter(target: str, name: str) -> str:
    return parse_qs(urlsplit(target).query).get(name, [""])[-1]
