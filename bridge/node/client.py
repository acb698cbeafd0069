"""A snapshot of the connection to Feishu for embedding programs, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import urlsplit

from flybridge.bridge.feishu.discovery import Endpoint
from flybridge.bridge.ops.status import Status


@dataclass(frozen=True, slots=True)
class Client:
    """The connection at one moment. Without one, `id` and `url` are empty; the counters go on."""

    is_connected: bool = False
    id: str = ""
    """Feishu's name for this connection, its device id."""
    url: str = ""
    """Without the query, which holds the ticket."""
    connected_at: int | None = None
    """Unix ms."""
    connects: int = 0
    """Connections since the start, this one included."""
    frames: Mapping[str, int] = field(default_factory=dict)
    """Frames that came in since the start, by what became of them: see `FrameOutcome`."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Events since the start, by how they were answered."""

    @classmethod
    def of(cls, status: Status, endpoint: Endpoint | None) -> Self:
        """The connection of a bridge with this status, to this endpoint."""
        counters = cls(connects=status.connects, frames=status.frames, outcomes=status.outcomes)
        if endpoint is None or status.connected_for is None:
            return counters
        return replace(
            counters,
            is_connected=True,
            id=endpoint.device_id,
            url=_without_query(endpoint.url),
            connected_at=status.at - round(status.connected_for * 1000),
        )


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
