"""Reads what an envelope says about its event. The bridge and `Event` both read by these rules.

Feishu has two envelopes. 2.0: `schema`, `header` and `event`. 1.0: `uuid`, `ts` and `event`, whose
`type`, `app_id` and `tenant_key` stand among the fields of the body. Their shape tells them apart;
`schema` is written on both, or on neither. Ids and keys come as text or as numbers, times in
several units and under two names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flybridge.handlers.errors import EventInvalid
from flybridge.handlers.timestamps import microseconds

ENCRYPTED = (
    "an encrypted envelope, as webhooks send it; the long connection is not encrypted: take the "
    "Encrypt Key off in Feishu's console, or decrypt it before it is published"
)
CHALLENGE = "a webhook's url_verification, which is no event; do not publish it"

_SCHEMAS = frozenset({"", "1", "1.0", "2", "2.0"})
_LARGEST = 10**20
"""Ids are at most 20 digits; str() refuses integers of thousands."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an envelope says about its event."""

    event_id: str
    """Empty where the envelope has none, as that of `url.preview.get`."""
    event_type: str
    """As it was sent."""
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_us: int | None
    """Unix microseconds; None when the envelope gives no readable time."""


def read_v2(header: Mapping[str, object]) -> Header:
    """Read the `header` object of a 2.0 envelope."""
    return Header(
        text(header.get("event_id")),
        text(header.get("event_type")),
        text(header.get("app_id")),
        text(header.get("tenant_key")),
        "2.0",
        # Feishu: some approval events name their time `event_create_time`, in decimal seconds.
        microseconds(header.get("create_time"), header.get("event_create_time")),
    )


def read_v1(uuid: object, ts: object, event: Mapping[str, object]) -> Header:
    """Read a 1.0 envelope. An approval has another `uuid` in its body: its creator's, may repeat.

    Args:
        uuid: of the envelope.
        ts: of the envelope.
        event: the body, or `type`, `app_id` and `tenant_key` of it.
    """
    return Header(
        text(uuid),
        text(event.get("type")),
        text(event.get("app_id")),
        text(event.get("tenant_key")),
        "1.0",
        microseconds(ts),
    )


def check_schema(schema: object) -> None:
    """Refuse an envelope whose `schema` is neither 1.0 nor 2.0, nor absent.

    Raises:
        EventInvalid: its shape may mean anything.
    """
    if text(schema) not in _SCHEMAS:
        raise EventInvalid(f"schema {text(schema)[:32]!r} is neither 1.0 nor 2.0")


def text(value: object) -> str:
    """A text, or a number as text; "" for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(value) if -_LARGEST < value < _LARGEST else ""
