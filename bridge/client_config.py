"""How a server wants its clients to behave. Not what an operator sets: see `bridge/settings.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What the server tells its clients, in discovery and in pongs. Seconds; the SDKs' defaults."""

    reconnect_interval: int = 120
    """Between attempts."""
    ping_interval: int = 120

    def updated(self, fields: object) -> ClientConfig:
        """This config with Feishu's `fields` on top; what is missing or no number stays."""
        if not isinstance(fields, Mapping):
            return self
        return ClientConfig(
            _clamped(fields.get("ReconnectInterval"), self.reconnect_interval),
            _clamped(fields.get("PingInterval"), self.ping_interval),
        )

    def from_json(self, data: bytes) -> ClientConfig:
        """`updated` with a JSON object; this config if it is none."""
        try:
            return self.updated(msgspec.json.decode(data))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self


def _clamped(value: object, otherwise: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return int(min(max(value, 1), 86_400))
