"""The ClientConfig by which Feishu tells its clients how often to ping and to reconnect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What Feishu tells its clients in discovery and pongs; seconds. The defaults are the SDKs'."""

    reconnect_interval: int = 120
    """Between attempts."""
    ping_interval: int = 120

    def updated(self, fields: object) -> ClientConfig:
        """This config with Feishu's `fields` on top. Fields that are missing or no number stay."""
        if not isinstance(fields, Mapping):
            return self
        return ClientConfig(
            _clamped(fields.get("ReconnectInterval"), self.reconnect_interval),
            _clamped(fields.get("PingInterval"), self.ping_interval),
        )

    def from_json(self, data: bytes) -> ClientConfig:
        """`updated` with a JSON object; unchanged if it is none."""
        try:
            return self.updated(msgspec.json.decode(data))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self


def _clamped(value: object, otherwise: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return int(min(max(value, 1), 86_400))
